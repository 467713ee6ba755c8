"""Is a weight 2:4, as TensorRT reads it? In every aligned run of 4 along the reduction axis at least 2 zeros.

Counted in the stored bytes, for all positions of all other axes at once.
"""

from __future__ import annotations

import hashlib

import numpy as np

from prunec.backends.base import Count

GROUP = 4
KEPT = 2
MANY = 0.25
"""Share of zeros from which a weight is taken to have been pruned by somebody."""


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


def misplaced(array: np.ndarray, axis: int, found: Count, zero: int = 0) -> tuple[str, str] | None:
    """Why a weight with many zeros is not 2:4 along `axis`, and what to change; None where it is or has few.

    `found` is what `count` says of that axis.
    """
    if found.is_sparse or found.zeros < MANY:
        return None
    change = "put them there: prunec compile does"
    others = {f"axis {other}": (array, other) for other in range(array.ndim) if other != axis}
    if axis == 1 and array.ndim > 2:
        others["inputs and kernel positions in one line"] = (array.reshape(len(array), -1), 1)
    for name, (form, other) in others.items():
        if form.shape[other] % GROUP == 0 and count(form, other, zero).is_sparse:
            return f"its zeros are 2:4 along {name}, TensorRT reads along axis {axis}", change
    if found.valid == found.units:
        return f"{found.negative} of its zeros are −0.0, which are no zeros in the stored bytes", "store them as +0.0"
    what = f"{found.zeros:.0%} of it are zeros, but {found.units - found.valid} of {found.units} runs of four have"
    return f"{what} fewer than two", change


def digest(array: np.ndarray) -> str:
    """sha256 of the little-endian bytes in C order, in hexadecimal."""
    data = np.ascontiguousarray(array)
    if data.dtype.byteorder == ">":
        data = data.astype(data.dtype.newbyteorder("<"))
    return hashlib.sha256(data.tobytes()).hexdigest()
