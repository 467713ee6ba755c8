"""Operators without a rule: every axis they touch is pinned, and so is everything their subgraphs capture."""

from __future__ import annotations

import onnx_ir as ir

from prunec.graph.flow import Flow
from prunec.graph.rules.cut import Cut


class Unknown:
    def couple(self, node: ir.Node, flow: Flow) -> None:
        name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        flow.pin_inputs(node, "PC101", f"{name} has no channel rule")
        for attribute in node.attributes.values():
            graphs = attribute.as_graphs() if attribute.type == ir.AttributeType.GRAPHS else []
            if attribute.type == ir.AttributeType.GRAPH:
                graphs = [attribute.as_graph()]
            for graph in graphs:
                for inner in graph.all_nodes():
                    for value in inner.inputs:
                        for ids in flow.of(value):
                            flow.pin(ids, "PC108", node, f"captured by a subgraph of {name}")
                for value in graph.outputs:
                    for ids in flow.of(value):
                        flow.pin(ids, "PC108", node, f"returned by a subgraph of {name}")

    def cut(self, node: ir.Node, cut: Cut) -> None:
        """Nothing to rewrite: everything is pinned."""
