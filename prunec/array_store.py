"""Arrays by key: in memory up to a limit, then in a temporary folder.

The folder is removed when the store is closed or forgotten, whatever happened (also on Ctrl-C).
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Hashable, Iterator
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

import numpy as np

Key = TypeVar("Key", bound=Hashable)
SMALL_BYTES = 4096
"""Arrays that are never worth a file."""


def in_file(array: np.ndarray) -> np.ndarray:
    """The same numbers, read only, mapped from a file without a name; small ones as they are."""
    if array.nbytes <= SMALL_BYTES:
        return array
    with tempfile.TemporaryFile(prefix="prunec-") as file:
        np.ascontiguousarray(array).tofile(file)
        return np.memmap(file, array.dtype, "r", shape=array.shape)


def let_go(array: np.ndarray) -> None:
    """Give the memory of an array of `in_file` back; what is read of it later comes from the file again."""
    if isinstance(array, np.memmap) and array.mode == "r" and hasattr(mmap, "MADV_DONTNEED"):
        array._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


class ArrayStore(Generic[Key]):
    """A mapping from keys to arrays with a limit on memory. Arrays handed out must not be written to.

    Files hold bare bytes: a header would be parsed thousands of times, which took a tenth of a compile.
    """

    def __init__(self, ram_bytes: int, folder: Path | None = None) -> None:
        self._parent = folder
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._ram_bytes = ram_bytes
        self._arrays: dict[Key, np.ndarray] = {}
        self._files: dict[Key, tuple[Path, np.dtype[Any], tuple[int, ...]]] = {}
        self._used = 0
        self._written = 0

    def put(self, key: Key, array: np.ndarray) -> None:
        if array.nbytes <= SMALL_BYTES or array.dtype == object or self._used + array.nbytes <= self._ram_bytes:
            self._arrays[key] = array
            self._used += array.nbytes
            return
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="prunec-arrays-", dir=self._parent)
        path = Path(self._temporary.name) / str(self._written)
        self._written += 1
        np.ascontiguousarray(array).tofile(path)
        self._files[key] = path, array.dtype, array.shape

    def get(self, key: Key) -> np.ndarray:
        array = self._arrays.get(key)
        if array is None:
            path, kind, shape = self._files[key]
            array = np.fromfile(path, kind).reshape(shape)
        return array

    def shape(self, key: Key) -> tuple[int, ...]:
        """Without reading the array."""
        array = self._arrays.get(key)
        return self._files[key][2] if array is None else array.shape

    def drop(self, key: Key) -> None:
        array = self._arrays.pop(key, None)
        if array is not None:
            self._used -= array.nbytes
        file = self._files.pop(key, None)
        if file is not None:
            file[0].unlink()

    def __iter__(self) -> Iterator[Key]:
        """The keys of everything that is held."""
        return chain(self._arrays, self._files)

    def close(self) -> None:
        self._arrays.clear()
        self._files.clear()
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self) -> ArrayStore[Key]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
