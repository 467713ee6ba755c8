"""Resize, and the pixel shuffles that trade channels for space."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunec.graph.flow import Flow
from prunec.graph.rules.base import KeepsAttributes, attribute, given, outputs_untracked
from prunec.graph.rules.cut import Cut
from prunec.graph.shapes import dims


class Resize:
    """Axes whose length does not change pass through; resized ones cannot be cut."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        data, output = node.inputs[0], node.outputs[0]
        axes, before, after = flow.of(data), dims(data), dims(output)
        if before is None or after is None or len(before) != len(after):
            flow.pin_inputs(node, "PC104", "the output shape is computed at run time")
            outputs_untracked(node, flow)
            return
        result = [ids if b == a else None for ids, b, a in zip(axes, before, after, strict=True)]
        for ids, kept in zip(axes, result, strict=True):
            if kept is None:
                flow.pin(ids, "PC107", node, "is resized")
        flow.set(output, result)

    def cut(self, node: ir.Node, cut: Cut) -> None:
        if not given(node, 3):
            return
        n = len(dims(node.outputs[0]) or ())
        axes = attribute(node, "axes")
        cut.patch_shape(node, 3, node.outputs[0], None if axes is None else [int(a) % n for a in axes])


class DepthToSpace(KeepsAttributes):
    """[N, C·r², H, W] → [N, C, H·r, W·r]: the r² channels that make one output channel are united."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        axes = flow.of(node.inputs[0])
        ids = axes[1] if len(axes) == 4 else None
        if ids is None:
            outputs_untracked(node, flow)
            return
        r2 = int(attribute(node, "blocksize")) ** 2
        crd = attribute(node, "mode", "DCR") == "CRD"
        rows = ids.reshape(-1, r2) if crd else ids.reshape(r2, -1).T
        flow.unite(rows[:, :1], rows)
        flow.set(node.outputs[0], [axes[0], rows[:, 0], None, None])


class SpaceToDepth(KeepsAttributes):
    """[N, C, H, W] → [N, C·r², H/r, W/r]: output channel b·C + c comes from c."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        axes = flow.of(node.inputs[0])
        ids = axes[1] if len(axes) == 4 else None
        r2 = int(attribute(node, "blocksize")) ** 2
        flow.set(node.outputs[0], [axes[0] if axes else None, None if ids is None else np.tile(ids, r2), None, None])
