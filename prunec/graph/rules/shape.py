"""Shape and Size read lengths, not values: reading a tracked length at run time pins it.

Canonicalisation freezes the reads of static lengths, so what is left reads batch and spatial axes.
"""

from __future__ import annotations

import onnx_ir as ir

from prunec.graph.flow import Flow
from prunec.graph.rules.base import KeepsAttributes, attribute, outputs_untracked
from prunec.graph.shapes import constant


class Shape(KeepsAttributes):
    def couple(self, node: ir.Node, flow: Flow) -> None:
        axes = flow.of(node.inputs[0])
        read = self._read(node, len(axes))
        for axis in read:
            flow.pin(axes[axis], "PC110", node, "its length is read at run time")
        outputs_untracked(node, flow)

    def _read(self, node: ir.Node, n: int) -> set[int]:
        if node.op_type == "Size":
            return set(range(n))
        span = range(n)[attribute(node, "start", 0) : attribute(node, "end", n)]
        uses = list(node.outputs[0].uses())
        picked: set[int] = set()
        for use in uses:
            index = constant(use.node.inputs[1]) if use.node.op_type == "Gather" and use.idx == 0 else None
            if index is None:
                return set(span)
            picked.update(span[int(i)] for i in index.ravel())
        return set(span) if node.outputs[0].is_graph_output() else picked
