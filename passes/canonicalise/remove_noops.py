"""Nodes that return their input: Identity, Dropout at inference, Cast to the type it already has."""

from __future__ import annotations

import onnx_ir as ir

from prunec.passes.canonicalise.tools import constant, is_op, nodes_of, rename_output


class RemoveNoops(ir.passes.InPlacePass):
    """y = Identity(x) | Dropout(x) | Cast(x, to=type of x)  →  every use of y reads x.

    1. When y is a graph output, x takes y's name; so the model keeps its output names.
    2. When y is a graph output and x is a graph input, an initializer, another graph output, or of another graph,
       the node stays: two interface values cannot be one.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        removed = 0
        for node in nodes_of(model):
            if _is_noop(node) and _bypass(node):
                removed += 1
        return ir.passes.PassResult(model, modified=removed > 0)


def _is_noop(node: ir.Node) -> bool:
    if is_op(node, "Identity"):
        return True
    if is_op(node, "Dropout"):
        training = node.inputs[2] if len(node.inputs) > 2 else None
        mask_used = len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output())
        known = constant(training)
        return not mask_used and (training is None or (known is not None and not known.any()))
    if is_op(node, "Cast"):
        data = node.inputs[0]
        return data is not None and data.dtype is not None and int(data.dtype) == node.attributes["to"].as_int()
    return False


def _bypass(node: ir.Node) -> bool:
    source, output = node.inputs[0], node.outputs[0]
    graph = node.graph
    if source is None or graph is None:
        return False
    if output.is_graph_output():
        producer = source.producer()
        if producer is None or producer.graph is not graph or source.is_graph_output():
            return False
        if list(graph.outputs).count(output) != 1:
            return False
        rename_output(output, source)
    else:
        output.replace_all_uses_with(source)
    if source.type is None:
        source.type = output.type
    graph.remove(node, safe=True)
    return True
