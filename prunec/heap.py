"""Give memory that was freed back to the operating system.

glibc keeps freed blocks below others that are still in use, and lets blocks of up to 32 MiB come from that heap once
one of their size was freed. After a stage with large arrays most of what a process then seems to hold is such blocks;
and in one, activations of a convolutional network (5 MB each) made a layer take 145 MiB of which it used 78.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_MMAP_THRESHOLD = -3
"""glibc's number for the size from which a block is a mapping of its own, gone when it is freed."""
LARGE_BYTES = 1 << 20
LARGEST_BYTES = 1 << 25
"""Where glibc itself ends up when blocks of that size are freed; it cannot be told to go back to the start."""


@contextmanager
def large_blocks_apart() -> Iterator[None]:
    """Inside, the heap does not grow for blocks of `LARGE_BYTES` or more. Does nothing without glibc.

    Room that was free in the heap before is still used first.
    """
    _set_mmap_threshold(LARGE_BYTES)
    try:
        yield
    finally:
        _set_mmap_threshold(LARGEST_BYTES)


def release_free_memory() -> None:
    """Does nothing where the C library has no `malloc_trim` (musl, macOS, Windows)."""
    trim = _trim()
    if trim is not None:
        trim(0)


def _set_mmap_threshold(size: int) -> None:
    if _trim() is not None:  # musl has a mallopt that does nothing
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, size)


@functools.cache
def _trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
