"""Write nodes in the place of one node: what spells an operator out in others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from prunec.graph.shapes import constant, dims


class Writer:
    """Collects new nodes; `finish` puts them where `node` was. Shapes and dtypes are given, nothing is inferred."""

    def __init__(self, model: ir.Model, node: ir.Node) -> None:
        self.model = model
        self.node = node
        self._new: list[ir.Node] = []
        self._constants = 0

    def constant(self, data: np.ndarray) -> ir.Value:
        """A new initializer, named after the node's output."""
        name = f"{self.node.outputs[0].name}_spelled_{len(self._new)}_{self._constants}"
        self._constants += 1
        tensor = ir.Tensor(np.ascontiguousarray(data), name=name)
        value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.model.graph.register_initializer(value)
        return value

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        shape: Sequence[int],
        dtype: ir.DataType = ir.DataType.FLOAT,
        **attributes: int | float | str | Sequence[int],
    ) -> ir.Value:
        """Its only output."""
        number = len(self._new)
        node = ir.node(op_type, inputs, attributes=attributes, name=f"{self.node.name}_{number}_{op_type}")
        (value,) = node.outputs
        value.name = f"{self.node.outputs[0].name}_spelled_{number}"
        value.shape, value.type = ir.Shape(list(shape)), ir.TensorType(dtype)
        self._new.append(node)
        return value

    def reshape(self, x: ir.Value, shape: Sequence[int]) -> ir.Value:
        """Constants are reshaped here and now, so that a product still knows its weights."""
        known = constant(x)
        if known is not None:
            return self.constant(known.reshape(shape))
        return self.op("Reshape", [x, self.constant(np.array(shape, np.int64))], shape, x.dtype or ir.DataType.FLOAT)

    def transpose(self, x: ir.Value, order: Sequence[int]) -> ir.Value:
        """As `reshape`."""
        known = constant(x)
        if known is not None:
            return self.constant(known.transpose(order))
        shape = [n for axis in order if isinstance(n := (dims(x) or ())[axis], int)]
        return self.op("Transpose", [x], shape, x.dtype or ir.DataType.FLOAT, perm=list(order))

    def reduce(self, op_type: str, x: ir.Value, axes: Sequence[int], *, keepdims: bool = True) -> ir.Value:
        """Over `axes`, which are an attribute in older operator sets: what has no code after all must run elsewhere."""
        shape = [n for n in (dims(x) or ()) if isinstance(n, int)]
        kept = [1 if axis in axes else n for axis, n in enumerate(shape) if keepdims or axis not in axes]
        version = self.model.opset_imports.get("", 1)
        if version >= (13 if op_type == "ReduceSum" else 18):
            over = self.constant(np.array(axes, np.int64))
            return self.op(op_type, [x, over], kept, keepdims=int(keepdims))
        return self.op(op_type, [x], kept, axes=list(axes), keepdims=int(keepdims))

    def finish(self, last: ir.Value) -> None:
        """`last` takes the place of the node's first output."""
        old = self.node.outputs[0]
        last.shape, last.type = old.shape, old.type
        graph = self.node.graph
        assert graph is not None
        ir.convenience.replace_nodes_and_values(graph, self.node, [self.node], self._new, [old], [last])
