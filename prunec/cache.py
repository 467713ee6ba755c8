"""What took long to work out, on disk, keyed by everything it depends on: `$PRUNEC_CACHE`, by default ~/.cache/prunec.

An entry is arrays by name and ends in the sha256 of all its bytes. It is written under another name and renamed, so
that it is there whole or not at all, whatever ends the process; one that does not match its hash counts as not there
and is removed, with a warning. The folder is bounded: the entries that were used longest ago go first, those of this
run never, and what does not fit beside them is not kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from prunec.diagnostics import Diagnostic

Arrays = dict[str, np.ndarray]
MAGIC = b"prunec cache 1\n"
DEFAULT_MB = 4096
SUFFIX = ".entry"
ABANDONED_AFTER_S = 24 * 3600
"""A temporary file of that age belongs to a process that was killed."""
CHUNK = 1 << 20
SIZE = hashlib.sha256().digest_size


def cache_root() -> Path:
    """`$PRUNEC_CACHE`, else ~/.cache/prunec."""
    return Path(os.environ.get("PRUNEC_CACHE") or Path.home() / ".cache" / "prunec")


def default_cache() -> Cache | None:
    """The user's cache; None where `$PRUNEC_CACHE_MB` says 0."""
    text = os.environ.get("PRUNEC_CACHE_MB", "")
    limit = (int(text) if text.isdigit() else DEFAULT_MB) * 1000**2
    return Cache(cache_root() / "solved", limit) if limit else None


class Cache:
    """Entries in one folder, at most `limit` bytes of them. `warnings`: what was damaged or could not be kept."""

    def __init__(self, folder: Path, limit: int = DEFAULT_MB * 1000**2) -> None:
        self.folder, self.limit = folder, limit
        self.warnings: list[Diagnostic] = []
        self._own: set[str] = set()
        self._is_broken = False

    def read(self, key: str) -> tuple[Arrays, str] | None:
        """The arrays and their hash, or None where there is no such entry, or a damaged one."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                found = _read(file)
            if found is not None:
                os.utime(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._cannot(error)
            return None
        if found is None:
            hint = "it is made again; if this happens more than once, look at the disk"
            self.warnings.append(Diagnostic("PC616", "an entry of the cache was damaged", where=path.name, hint=hint))
            with suppress(OSError):
                path.unlink()
            return None
        self._own.add(path.name)
        return found

    def write(self, key: str, arrays: Mapping[str, np.ndarray]) -> str | None:
        """The hash of what was written; None where it was not kept: no room, or a folder that cannot be written."""
        size = sum(array.nbytes for array in arrays.values())
        path = self._path(key)
        if self._is_broken:
            return None
        temporary: str | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self._make_room(size):
                return None
            descriptor, temporary = tempfile.mkstemp(dir=self.folder, prefix=".", suffix=".tmp")
            with os.fdopen(descriptor, "wb") as file:
                digest = _write(file, arrays)
            os.replace(temporary, path)
        except OSError as error:
            self._cannot(error)
            return None
        finally:
            if temporary is not None:
                with suppress(OSError):
                    os.unlink(temporary)
        self._own.add(path.name)
        return digest

    def _path(self, key: str) -> Path:
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}{SUFFIX}"

    def _make_room(self, size: int) -> bool:
        """Remove what was used longest ago until `size` more bytes fit."""
        used, old = 0, list[tuple[float, int, Path]]()
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):  # another process cleans up too
                found = path.stat()
                if path.suffix == ".tmp" and found.st_mtime < time.time() - ABANDONED_AFTER_S:
                    path.unlink()
                    continue
                used += found.st_size
                if path.suffix == SUFFIX and path.name not in self._own:
                    old.append((found.st_mtime, found.st_size, path))
        removable = sum(own for _, own, _ in old)
        if used - removable + size > self.limit:
            return False
        for _, own, path in sorted(old):
            if used + size <= self.limit:
                break
            path.unlink(missing_ok=True)
            used -= own
        return True

    def _cannot(self, error: OSError) -> None:
        if not self._is_broken:
            message = f"the cache cannot be used: {error.strerror or error}"
            hint = "free some space, set PRUNEC_CACHE to another folder, or --no-cache"
            self.warnings.append(Diagnostic("PC617", message, where=str(self.folder), hint=hint))
        self._is_broken = True


class _Hashed:
    """A file that hashes what goes through it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.file.write(data)


def _write(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> str:
    hashed = _Hashed(file)
    hashed.write(MAGIC + json.dumps(list(arrays)).encode() + b"\n")
    for array in arrays.values():
        np.lib.format.write_array(hashed, np.asarray(array), allow_pickle=False)
    file.write(hashed.digest.digest())
    return hashed.digest.hexdigest()


def _read(file: BinaryIO) -> tuple[Arrays, str] | None:
    """None where the hash or the form is wrong."""
    left = os.fstat(file.fileno()).st_size - SIZE
    digest = hashlib.sha256()
    while left > 0 and (data := file.read(min(CHUNK, left))):
        digest.update(data)
        left -= len(data)
    if left or file.read() != digest.digest():
        return None
    file.seek(0)
    if file.readline() != MAGIC:
        return None
    names = json.loads(file.readline())
    return {name: np.lib.format.read_array(file, allow_pickle=False) for name in names}, digest.hexdigest()
