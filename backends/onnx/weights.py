"""Weights that ONNX Runtime reads where they lie, instead of from a second copy inside a serialised model.

A large initializer goes into the model as a reference to external data, and its array to the session options
(`add_external_initializers`), which hold the memory without copying it. A session then costs what ONNX Runtime packs
for its kernels, is made several times faster, and has no 2 GiB limit. Arrays of a mapped file stay mapped.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime

SMALL_BYTES = 1024
"""Smaller tensors stay in the model: shapes and axes, which ONNX Runtime has to read while it builds the session."""
NATIVE = frozenset(ir.DataType[name] for name in "FLOAT16 FLOAT DOUBLE INT8 UINT8 INT16 UINT16 INT32 INT64".split())


class SharedWeights:
    """Collects arrays for one session. It has to live as long as the session: `attach` ties them together."""

    def __init__(self) -> None:
        self._arrays: dict[str, np.ndarray] = {}
        self._values: list[onnxruntime.OrtValue] = []

    def reference(self, tensor: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
        """The tensor to put into the model under `name`: itself, or a reference to what has been collected."""
        if tensor.dtype == ir.DataType.STRING:
            return tensor
        if tensor.nbytes < SMALL_BYTES or tensor.dtype not in NATIVE:
            return _inside(tensor, name)
        array = np.ascontiguousarray(tensor.numpy())
        self._arrays[name] = array
        return ir.ExternalTensor(name, 0, array.nbytes, tensor.dtype, shape=ir.Shape(array.shape), name=name)

    def offer(self, options: onnxruntime.SessionOptions) -> None:
        """Hand the arrays to the options that the session is made with."""
        if self._arrays:
            self._values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in self._arrays.values()]
            options.add_external_initializers(list(self._arrays), self._values)

    def attach(self, session: onnxruntime.InferenceSession) -> onnxruntime.InferenceSession:
        """Keep the arrays for as long as the session."""
        session.shared_weights = self
        return session


def _inside(tensor: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
    """A tensor whose data goes into the message: what lies in a file is read."""
    if isinstance(tensor, ir.ExternalTensor):
        return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=name)
    return tensor
