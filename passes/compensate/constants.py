"""New constants for nodes, in the type that the old ones had."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def set_constant(graph: ir.Graph, node: ir.Node, index: int, array: np.ndarray) -> None:
    """Give `node` a constant in the type it had there (the weight's where there was none); others keep theirs.

    What the type rounds to zero is +0.0: a tiny negative weight would become −0.0, which no proof of zeros takes.
    """
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    old = node.inputs[index]
    like = old if old is not None else node.inputs[1]
    assert like is not None and like.const_value is not None
    kind = like.const_value.dtype
    array = np.ascontiguousarray(array.astype(kind.numpy()))
    array += array.dtype.type(0)
    if old is not None and len(list(old.uses())) == 1 and not old.is_graph_output():
        old.const_value = ir.Tensor(array, dtype=kind, name=old.name)
        old.shape = ir.Shape(array.shape)
        return
    name = f"{node.name}.refitted.{index}"
    value = ir.Value(
        name=name,
        const_value=ir.Tensor(array, dtype=kind, name=name),
        type=ir.TensorType(kind),
        shape=ir.Shape(array.shape),
    )
    graph.register_initializer(value)
    node.replace_input_with(index, value)
    if old is not None and not old.uses() and not old.is_graph_output():
        del graph.initializers[old.name or ""]
