"""If with a constant condition → the nodes of the branch that is taken."""

from __future__ import annotations

import onnx_ir as ir

from prunec.passes.canonicalise.tools import constant, is_op, nodes_of


class InlineIf(ir.passes.InPlacePass):
    """1. Initializers and nodes of the branch move into the graph of the If.

    2. The branch's outputs replace those of the If. An If that gives a graph output directly, or a branch that
       returns a value it did not compute, stays.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        count = 0
        for node in nodes_of(model):
            if is_op(node, "If") and node.graph is not None:
                count += _inline(node)
        return ir.passes.PassResult(model, modified=count > 0)


def _inline(node: ir.Node) -> bool:
    condition, graph = constant(node.inputs[0]), node.graph
    if condition is None or not isinstance(graph, ir.Graph):
        return False
    branch = node.attributes["then_branch" if condition.reshape(-1)[0] else "else_branch"].as_graph()
    results = list(branch.outputs)
    produced = {output for inner in branch for output in inner.outputs}
    if any(output.is_graph_output() for output in node.outputs) or any(value not in produced for value in results):
        return False
    branch.outputs.clear()
    for name, value in list(branch.initializers.items()):
        del branch.initializers[name]
        if name in graph.initializers:
            value.name = f"{node.name}_{name}"
        graph.register_initializer(value)
    nodes = list(branch)
    branch.remove(nodes)
    graph.insert_before(node, nodes)
    for output, result in zip(node.outputs, results, strict=True):
        output.replace_all_uses_with(result)
    graph.remove(node, safe=True)
    return True
