"""Constant nodes → initializers, under the name of the value they produced."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunec.passes.canonicalise.tools import is_op, nodes_of


class LiftConstants(ir.passes.InPlacePass):
    """1. A Constant node becomes an initializer of the graph it is in, and the node goes.

    2. An initializer of a subgraph stays there.
    3. A Constant that is itself a graph output stays (an initializer is no legal output everywhere), as do strings
       and sparse constants.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        lifted = [node for node in nodes_of(model) if is_op(node, "Constant") and _lift(node)]
        for node in lifted:
            assert node.graph is not None
            node.graph.remove(node, safe=True)
        return ir.passes.PassResult(model, modified=bool(lifted))


def _lift(node: ir.Node) -> bool:
    output, graph = node.outputs[0], node.graph
    tensor = _tensor(node)
    if tensor is None or output.is_graph_output():
        return False
    assert isinstance(graph, ir.Graph)
    name = output.name
    while name is None or name in graph.initializers:
        name = f"{name or 'constant'}_"
    value = ir.Value(
        name=name, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    value.metadata_props.update(output.metadata_props)
    output.replace_all_uses_with(value)
    output.name = f"{name}_lifted"
    graph.register_initializer(value)
    return True


def _tensor(node: ir.Node) -> ir.TensorProtocol | None:
    """The value of a Constant node; attribute names per the ONNX operator Constant-13."""
    for name, attribute in node.attributes.items():
        if attribute.is_ref():
            return None
        match name:
            case "value":
                tensor: ir.TensorProtocol = attribute.value  # as_tensor() checks a protocol, slowly
                return None if tensor.dtype == ir.DataType.STRING else tensor
            case "value_int":
                return ir.Tensor(np.array(attribute.as_int(), np.int64))
            case "value_ints":
                return ir.Tensor(np.array(attribute.as_ints(), np.int64))
            case "value_float":
                return ir.Tensor(np.array(attribute.as_float(), np.float32))
            case "value_floats":
                return ir.Tensor(np.array(attribute.as_floats(), np.float32))
    return None
