"""When memory that was freed goes back to the operating system.

glibc keeps freed blocks below others that are still in use, and lets blocks of up to 32 MiB come from that heap once
one of their size was freed. After a stage with large arrays most of what a process then seems to hold is such blocks;
and in one, activations of a convolutional network (5 MB each) made a layer take 145 MiB of which it used 78.

A loop that asks for the same blocks again is better off if they stay: the kernel clears every page that it hands out,
which made a step of training take half as long again.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""glibc's numbers for the size from which a block is a mapping of its own, gone when it is freed, and for the free room
at the end of the heap from which on it shrinks."""
LARGE_BYTES = 1 << 20
LARGEST_BYTES = 1 << 25
"""Where glibc itself ends up when blocks of that size are freed; it cannot be told to go back to the start."""


_TRIMMED_BYTES, _KEPT_BYTES = 2 * LARGEST_BYTES, 1 << 30
_threshold = [LARGEST_BYTES]
"""Of the contexts that are entered; glibc does not say what it was told."""


@contextmanager
def large_blocks_apart() -> Iterator[None]:
    """Inside, the heap does not grow for blocks of `LARGE_BYTES` or more. Does nothing without glibc.

    Room that was free in the heap before is still used first.
    """
    with _mapped_from(LARGE_BYTES):
        yield


@contextmanager
def blocks_stay() -> Iterator[None]:
    """Inside, blocks below `LARGEST_BYTES` are used again; then what is free goes back. Nothing without glibc."""
    with _mapped_from(LARGEST_BYTES):
        _tell(_TRIM_THRESHOLD, _KEPT_BYTES)
        try:
            yield
        finally:
            _tell(_TRIM_THRESHOLD, _TRIMMED_BYTES)
            release_free_memory()


@contextmanager
def _mapped_from(size: int) -> Iterator[None]:
    _threshold.append(size)
    _tell(_MMAP_THRESHOLD, size)
    try:
        yield
    finally:
        _threshold.pop()
        _tell(_MMAP_THRESHOLD, _threshold[-1])


def release_free_memory() -> None:
    """Does nothing where the C library has no `malloc_trim` (musl, macOS, Windows)."""
    trim = _trim()
    if trim is not None:
        trim(0)


def _tell(what: int, size: int) -> None:
    if _trim() is not None:  # musl has a mallopt that does nothing
        ctypes.CDLL(None).mallopt(what, size)


@functools.cache
def _trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
