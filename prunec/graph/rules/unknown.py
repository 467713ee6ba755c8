"""Operators without a rule: every axis they touch is pinned, and so is everything their subgraphs capture.

The bodies of If, Loop and Scan are not entered: what goes in, what is carried around, what is captured from outside and
what comes out keeps its width, each with its own reason.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from prunec.graph.flow import Flow
from prunec.graph.rules.base import attribute, outputs_untracked
from prunec.graph.rules.cut import Cut


class Unknown:
    def couple(self, node: ir.Node, flow: Flow) -> None:
        self.pin_operands(node, flow)
        for graph in _bodies(node):
            for inner in graph.all_nodes():
                for value in inner.inputs:
                    for ids in flow.of(value):
                        flow.pin(ids, "PC108", node, f"captures {_name(value)} in its body ({_operator(inner)})")
            for value in graph.outputs:
                for ids in flow.of(value):
                    flow.pin(ids, "PC108", node, f"returns {_name(value)} from its body")
        outputs_untracked(node, flow)

    def pin_operands(self, node: ir.Node, flow: Flow) -> None:
        flow.pin_inputs(node, "PC101", f"{_operator(node)} has no channel rule")

    def cut(self, node: ir.Node, cut: Cut) -> None:
        """Nothing to rewrite: everything is pinned."""


class Body(Unknown):
    """If, Loop (count, condition, state …) and Scan (state …, sequences …)."""

    def pin_operands(self, node: ir.Node, flow: Flow) -> None:
        scanned = int(attribute(node, "num_scan_inputs", 0))
        for index, value in enumerate(node.inputs):
            sequence = node.op_type == "Scan" and index >= len(node.inputs) - scanned
            role = "a sequence" if sequence else "a state that its body carries around"
            for ids in flow.of(value):
                flow.pin(ids, "PC108", node, f"takes {_name(value)} as {role}")


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    for found in node.attributes.values():
        if found.type == ir.AttributeType.GRAPH:
            yield found.as_graph()
        elif found.type == ir.AttributeType.GRAPHS:
            yield from found.as_graphs()


def _operator(node: ir.Node) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def _name(value: ir.Value | None) -> str:
    return "nothing" if value is None else str(value.name)
