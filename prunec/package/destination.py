"""Where a package may go, and how it gets there in one step.

A package is written beside its destination and renamed. Only a prunec package that holds nothing but its own files is
ever replaced, and only with `force`.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import sys
from pathlib import Path

from prunec.diagnostics import PrunecError
from prunec.package.manifest import EVIDENCE, MANIFEST

_AT_FDCWD = -100  # fcntl.h
_RENAME_EXCHANGE = 2  # linux/fs.h


def check_destination(out: Path, *, force: bool) -> None:
    """Raise PrunecError if a package may not be written to `out`, which is absolute.

    PC601 a package is there and `force` is not given; PC602 something else is there; PC603 the package there also
    holds files that prunec did not write; PC604 the folder around it does not exist or cannot be written.
    """
    if not out.parent.is_dir():
        raise PrunecError("PC604", "the folder does not exist", where=str(out.parent), hint="create it first")
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise PrunecError("PC604", "the folder cannot be written", where=str(out.parent), hint="choose another -o")
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir() or out == Path.cwd():
        what = "is the current folder" if out.is_dir() else "is a file"
        raise PrunecError("PC602", f"the output {what}, not a prunec package", where=str(out), hint="choose another -o")
    if not any(out.iterdir()):
        return
    own = package_files(out)
    if own is None:
        raise PrunecError(
            "PC602",
            "the folder is not empty and not a prunec package, so it is left alone",
            where=str(out),
            hint="choose another -o",
        )
    if not force:
        raise PrunecError("PC601", "there is a package already", where=str(out), hint="pass --force to replace it")
    foreign = sorted(files_in(out) - own)
    if foreign:
        raise PrunecError(
            "PC603",
            f"the package there holds files that prunec did not write: {', '.join(foreign[:5])}",
            where=str(out),
            hint="move them away, or choose another -o",
        )


def package_files(folder: Path) -> set[str] | None:
    """The names of the files that the package in `folder` may hold; None if there is no package.

    Looks only at what every schema version has, so that a newer prunec's package is recognised too.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("schema_version"), int):
        return None
    files = manifest.get("files")
    return {MANIFEST, *EVIDENCE, *files} if isinstance(files, dict) else None


def files_in(folder: Path) -> set[str]:
    """Every file below `folder`, and every empty folder, as a relative path with forward slashes."""
    found = (path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink() or not any(path.iterdir()))
    return {path.relative_to(folder).as_posix() for path in found}


def move_into_place(written: Path, out: Path, *, force: bool) -> None:
    """Make the folder `written` be `out`, whatever was checked before: a package there goes only with `force`.

    Raises PrunecError as `check_destination`, OSError if the file system refuses.
    """
    check_destination(out, force=force)
    if not out.exists() or not any(out.iterdir()):
        try:
            os.rename(written, out)  # over an empty folder too
        except OSError as reason:
            if reason.errno in (errno.ENOTEMPTY, errno.EEXIST):  # somebody was quicker
                check_destination(out, force=False)
            raise
        return
    if not _exchange(written, out):
        _swap(written, out)
    shutil.rmtree(written, ignore_errors=True)  # the old package now


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one system call; False where there is none."""
    if sys.platform != "linux":
        return False
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS):  # the file system cannot
        return False
    raise OSError(code, os.strerror(code), str(other))


def _swap(written: Path, out: Path) -> None:
    """Swap two folders in three renames, back to the start if the second one fails."""
    aside = written.with_name(f"{written.name}.old")
    os.rename(out, aside)
    try:
        os.rename(written, out)
    except BaseException:
        os.rename(aside, out)
        raise
    os.rename(aside, written)
