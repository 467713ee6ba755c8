"""Is a weight 2:4, as TensorRT reads it? In every aligned run of 4 along the reduction axis at least 2 zeros.

Counted in the stored bytes, for all positions of all other axes at once.
"""

from __future__ import annotations

import hashlib

import numpy as np

from prunec.backends.base import Count

GROUP = 4
KEPT = 2


def count(array: np.ndarray, axis: int, zero: int = 0) -> Count:
    """`array` of any rank and real type; `axis` is the one that the product sums over, a multiple of 4 long."""
    length = array.shape[axis]
    assert length % GROUP == 0, f"axis {axis} is {length} long"
    is_kept = array != zero
    moved = np.moveaxis(is_kept, axis, -1)
    runs = np.count_nonzero(moved.reshape(*moved.shape[:-1], length // GROUP, GROUP), axis=-1)
    negative = 0
    if array.dtype.kind == "f" or array.dtype.name in ("bfloat16", "float16"):
        negative = int(np.count_nonzero(np.signbit(array) & ~is_kept))
    return Count(
        units=runs.size,
        valid=int(np.count_nonzero(runs <= GROUP - KEPT)),
        zeros=1 - float(runs.sum()) / max(array.size, 1),
        negative=negative,
    )


def digest(array: np.ndarray) -> str:
    """sha256 of the little-endian bytes in C order, in hexadecimal."""
    data = np.ascontiguousarray(array)
    if data.dtype.byteorder == ">":
        data = data.astype(data.dtype.newbyteorder("<"))
    return hashlib.sha256(data.tobytes()).hexdigest()
