"""Give memory that was freed back to the operating system.

glibc keeps freed blocks below others that are still in use, and lets blocks of up to 32 MiB come from that heap once
one of their size was freed. After a stage with large arrays most of what a process then seems to hold is such blocks.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable


def release_free_memory() -> None:
    """Does nothing where the C library has no `malloc_trim` (musl, macOS, Windows)."""
    trim = _trim()
    if trim is not None:
        trim(0)


@functools.cache
def _trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
