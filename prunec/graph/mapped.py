"""Tensors in files: read them without keeping them.

`ExternalTensor.numpy()` maps the whole data file for as long as the tensor lives, and every page that was ever read
counts as resident. A model larger than the memory has to be read one tensor at a time instead: mapped, used, let go.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

LAZY_BYTES = 1 << 16
"""Smaller tensors are simply read."""


def opened(tensor: ir.TensorProtocol) -> np.ndarray:
    """The data of a tensor; that of a large one in a file is mapped until the array and its views are gone."""
    if not isinstance(tensor, ir.ExternalTensor) or tensor.nbytes < LAZY_BYTES or not is_plain(tensor.dtype):
        return tensor.numpy()
    shape = tuple(int(d) for d in tensor.shape.numpy())
    dtype = np.dtype(tensor.dtype.numpy()).newbyteorder("<")
    return np.memmap(Path(tensor.path), dtype, "r", tensor.offset or 0, shape)


def compressed(tensor: ir.TensorProtocol, masks: Sequence[tuple[int, np.ndarray]], name: str) -> ir.TensorProtocol:
    """`tensor` at the positions where `masks` (axis, bool per position) are true; see `taken`."""
    return taken(tensor, [(axis, np.flatnonzero(mask)) for axis, mask in masks], name)


def taken(tensor: ir.TensorProtocol, picks: Sequence[tuple[int, np.ndarray]], name: str) -> ir.TensorProtocol:
    """`tensor` at the positions `picks` (axis, int64 positions), in their order; read when asked for, if it is large.

    What lies in a file stays there until somebody wants the numbers, and is not kept then.
    """
    shape = [int(d) for d in tensor.shape.numpy()]
    for axis, index in picks:
        shape[axis] = len(index)

    def read() -> ir.TensorProtocol:
        array = opened(tensor)
        for axis, index in picks:
            array = np.take(array, index, axis=axis)
        return ir.Tensor(np.ascontiguousarray(array), dtype=tensor.dtype, name=name)

    if isinstance(tensor, ir.ExternalTensor | ir.LazyTensor) and tensor.nbytes >= LAZY_BYTES:
        return ir.LazyTensor(read, tensor.dtype, ir.Shape(shape), name=name)
    return read()


def is_plain(dtype: ir.DataType) -> bool:
    """Whether numpy itself has the type, so that its bytes in a file are the array."""
    return dtype.bitwidth >= 8 and np.dtype(dtype.numpy()).kind in "iufb"
