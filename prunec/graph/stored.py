"""Tensors that lie in an open file and are read each time their numbers are asked for.

Between two uses a weight takes no memory: of a model that is looked at layer by layer only the layer is there.
"""

from __future__ import annotations

import os
import tempfile
from typing import BinaryIO, cast

import numpy as np
import onnx_ir as ir

from prunec.diagnostics import PrunecError
from prunec.graph.mapped import LAZY_BYTES, is_plain


class StoredTensors:
    """A file that tensors lie in: the user's own, or a temporary one that goes with the last of them.

    Reading raises PrunecError PC022 where somebody else has written to the file since.
    """

    def __init__(self, file: BinaryIO | None = None) -> None:
        self._is_own = file is None
        self._file = cast(BinaryIO, tempfile.TemporaryFile(prefix="prunec-")) if file is None else file  # noqa: SIM115
        self._stamp = self._now()

    def at(self, offset: int, dtype: ir.DataType, shape: list[int], name: str | None) -> ir.LazyTensor:
        """The tensor whose little-endian bytes begin at `offset`."""

        def read() -> ir.TensorProtocol:
            array = np.empty(shape, np.dtype(dtype.numpy()).newbyteorder("<"))
            if not self._is_own and self._now() != self._stamp:
                raise _changed(self._file)
            self._file.seek(offset)
            if self._file.readinto(array.reshape(-1).view(np.uint8)) != array.nbytes:  # type: ignore[attr-defined]
                raise _changed(self._file)
            return ir.Tensor(array, dtype=dtype, name=name)

        return ir.LazyTensor(read, dtype, ir.Shape(shape), name=name)

    def put(self, tensor: ir.TensorProtocol) -> ir.LazyTensor:
        """A tensor that was in memory, at the end of the temporary file."""
        assert self._is_own
        offset = self._file.seek(0, os.SEEK_END)
        self._file.write(tensor.tobytes())
        return self.at(offset, tensor.dtype, [int(d) for d in tensor.shape.numpy()], tensor.name)

    def _now(self) -> tuple[int, int]:
        found = os.fstat(self._file.fileno())
        return found.st_size, found.st_mtime_ns


def store_weights(model: ir.Model) -> None:
    """Move the large initializers that `model` holds in memory into a temporary file."""
    stored = StoredTensors()
    moved: dict[int, ir.LazyTensor] = {}
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.Tensor) and tensor.nbytes >= LAZY_BYTES and is_plain(tensor.dtype):
                value.const_value = moved.setdefault(id(tensor), stored.put(tensor))


def _changed(file: BinaryIO) -> PrunecError:
    return PrunecError(
        "PC022", "the file was written to while it was being read", where=str(file.name), hint="run the command again"
    )
