"""Where the zoo keeps what it fetched and built: `$PRUNEC_CACHE/zoo`, by default `~/.cache/prunec/zoo`."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prunec.cache import cache_root
from prunec.diagnostics import PrunecError

CANNOT_WRITE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR})


def zoo_cache(cache: Path | None = None) -> Path:
    """`cache` is the root that `$PRUNEC_CACHE` would name; None means the environment, then the home folder."""
    return (cache or cache_root()) / "zoo"


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` when the block succeeds and vanishes when it fails.

    Two processes may build the same folder at once: the first to finish wins, the other drops its copy.
    Raises PC704 when the disk is full or the cache cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        yield stage
        try:
            stage.chmod(0o755)
            stage.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        raise cannot_write(folder, error) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def cannot_write(path: Path, error: OSError) -> PrunecError:
    return PrunecError(
        "PC704",
        f"the zoo cache cannot be written: {error.strerror or error}",
        where=str(path),
        hint="free some space, or set PRUNEC_CACHE to a folder that can be written",
    )
