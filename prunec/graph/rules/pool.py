"""Pooling: channels pass through, pooled axes cannot be cut."""

from __future__ import annotations

import onnx_ir as ir

from prunec.graph.flow import Flow
from prunec.graph.rules.base import KeepsAttributes
from prunec.graph.shapes import dims


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


class Sample(KeepsAttributes):
    """GridSample and RoiAlign read [N, C, H, W] at places that other inputs name: channels pass, nothing else does."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        axes = flow.of(node.inputs[0])
        for value in node.inputs[1:]:
            for ids in flow.of(value):
                flow.pin(ids, "PC109", node, "names places to sample with it")
        for axis, ids in enumerate(axes):
            if axis != 1:
                flow.pin(ids, "PC107", node, "is sampled at places found at run time")
        n = len(dims(node.outputs[0]) or axes)
        flow.set(node.outputs[0], [axes[1] if axis == 1 and len(axes) > 1 else None for axis in range(n)])
