"""Arrays by key: in memory up to a limit, then in a temporary file.

The file has no name, so it is gone when the store is closed or forgotten, whatever happened (also on Ctrl-C).
"""

from __future__ import annotations

import bisect
import math
import mmap
import tempfile
from collections.abc import Hashable, Iterator
from io import FileIO
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

import numpy as np

Key = TypeVar("Key", bound=Hashable)
SMALL_BYTES = 4096
"""Arrays that are never worth a file."""
MAPPED_BYTES = 1 << 18
"""Arrays from which mapping a file costs less than reading it to fresh memory (a quarter at 5 MB)."""


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

    The file holds bare bytes: headers would be parsed thousands of times, which took a tenth of a compile. With
    `is_mapped` large arrays are parts of the file, read only, and must not be looked at once their key was dropped.
    """

    def __init__(self, ram_bytes: int, folder: Path | None = None, *, is_mapped: bool = False) -> None:
        self._ram_bytes, self._is_mapped = ram_bytes, is_mapped
        self._arrays: dict[Key, np.ndarray] = {}
        self._used = 0
        self._file = _File(folder)
        self._stored: dict[Key, tuple[int, np.dtype, tuple[int, ...]]] = {}
        """Offset, type and shape of what is in the file."""

    def put(self, key: Key, array: np.ndarray) -> None:
        if array.nbytes <= SMALL_BYTES or array.dtype == object or self._used + array.nbytes <= self._ram_bytes:
            self._arrays[key] = array
            self._used += array.nbytes
        else:
            self._stored[key] = self._file.write(np.ascontiguousarray(array)), array.dtype, array.shape

    def get(self, key: Key) -> np.ndarray:
        array = self._arrays.get(key)
        if array is not None:
            return array
        offset, dtype, shape = self._stored[key]
        if self._is_mapped and dtype.itemsize * math.prod(shape) >= MAPPED_BYTES:
            return self._file.mapped(offset, dtype, shape)
        return self._file.read(offset, dtype, shape)

    def shape(self, key: Key) -> tuple[int, ...]:
        """Without reading the array."""
        array = self._arrays.get(key)
        return self._stored[key][2] if array is None else array.shape

    def drop(self, key: Key) -> None:
        array = self._arrays.pop(key, None)
        if array is not None:
            self._used -= array.nbytes
        stored = self._stored.pop(key, None)
        if stored is not None:
            offset, dtype, shape = stored
            self._file.free(offset, dtype.itemsize * math.prod(shape))

    def __iter__(self) -> Iterator[Key]:
        """The keys of everything that is held."""
        return chain(self._arrays, self._stored)

    def close(self) -> None:
        self._arrays.clear()
        self._stored.clear()
        self._file.close()

    def __enter__(self) -> ArrayStore[Key]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _File:
    """A temporary file in pieces: what is freed is written to again, the smallest piece that is large enough first."""

    def __init__(self, folder: Path | None) -> None:
        self._folder, self._end = folder, 0
        self._pieces: list[tuple[int, int]] = []
        """(bytes, offset) of what is free, in order."""
        self._file: FileIO | None = None

    def write(self, array: np.ndarray) -> int:
        """The offset at which the bytes of a contiguous array lie from now on."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="prunec-arrays-", dir=self._folder, buffering=0)  # noqa: SIM115
        place = bisect.bisect_left(self._pieces, (array.nbytes, 0))
        if place < len(self._pieces):
            size, offset = self._pieces.pop(place)
            if size > array.nbytes:
                self.free(offset + array.nbytes, size - array.nbytes)
        else:
            offset, self._end = self._end, self._end + array.nbytes
        self._file.seek(offset)
        left = array.reshape(-1).view(np.uint8)
        while len(left):
            left = left[self._file.write(left.data) :]
        return offset

    def read(self, offset: int, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        assert self._file is not None
        array = np.empty(shape, dtype)
        self._file.seek(offset)
        left = array.reshape(-1).view(np.uint8)
        while len(left):
            left = left[self._file.readinto(left.data) :]
        return array

    def mapped(self, offset: int, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        """The bytes themselves, as long as they stay there."""
        assert self._file is not None
        pages = offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        size = dtype.itemsize * math.prod(shape)
        found = mmap.mmap(self._file.fileno(), offset - pages + size, access=mmap.ACCESS_READ, offset=pages)
        return np.frombuffer(found, dtype, math.prod(shape), offset - pages).reshape(shape)

    def free(self, offset: int, size: int) -> None:
        bisect.insort(self._pieces, (size, offset))

    def close(self) -> None:
        self._pieces.clear()
        if self._file is not None:
            self._file.close()
