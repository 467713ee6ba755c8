"""Weights that ONNX Runtime takes from where they lie, instead of from a second copy inside a serialised model.

A large initializer goes into the model as a reference to external data, and its array to the session options
(`add_external_initializers`). A session is then made several times faster and has no 2 GiB limit. ONNX Runtime copies
the arrays while it makes the session (1.31 does; another may not), and once it has they are let go.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import helper

SMALL_BYTES = 1024
"""Smaller tensors stay in the model: shapes and axes, which ONNX Runtime has to read while it builds the session."""
NATIVE = frozenset(ir.DataType[name] for name in "FLOAT16 FLOAT DOUBLE INT8 UINT8 INT16 UINT16 INT32 INT64".split())


class SharedWeights:
    """Collects arrays for one session. What the session still reads of it has to live as long: see `attach`."""

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
        """Keep the arrays for as long as the session, or let them go where it has copies of its own."""
        if are_copied():
            self._arrays, self._values = {}, []
        session.shared_weights = self
        return session


@cache
def are_copied() -> bool:
    """Whether a session no longer reads an array that it was made with: tried out on one that is overwritten."""
    shared, length = SharedWeights(), SMALL_BYTES
    tensor = ir.serde.serialize_tensor(shared.reference(ir.tensor(np.ones(length, np.float32)), "w"))
    tensor.name = "w"
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [length]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [tensor])
    proto = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    shared.offer(options)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    shared._arrays["w"][:] = 2
    (found,) = session.run(None, {"x": np.zeros(length, np.float32)})
    return bool((found == 1).all())


def _inside(tensor: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
    """A tensor whose data goes into the message: what lies in a file is read."""
    if isinstance(tensor, ir.ExternalTensor):
        return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=name)
    return tensor
