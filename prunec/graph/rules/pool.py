"""Pooling: channels pass through, pooled axes cannot be cut."""

from __future__ import annotations

import onnx_ir as ir

from prunec.graph.flow import Flow
from prunec.graph.rules.base import KeepsAttributes


class Pool(KeepsAttributes):
    def couple(self, node: ir.Node, flow: Flow) -> None:
        axes = flow.of(node.inputs[0])
        for ids in axes[2:]:
            flow.pin(ids, "PC107", node, f"{node.op_type} pools over this axis")
        result = [*axes[:2], *([None] * (len(axes) - 2))]
        for output in node.outputs:
            flow.set(output, result)
        if len(node.outputs) > 1:
            for ids in axes:
                flow.pin(ids, "PC109", node, "its indices count through this axis")
