"""Tile and Expand: ids are repeated, or an axis of length 1 becomes as many positions as its partner wants."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunec.graph.flow import Axes, Flow
from prunec.graph.rules.base import KeepsAttributes, ints, outputs_untracked
from prunec.graph.rules.cut import Cut
from prunec.graph.rules.move import table_axes
from prunec.graph.shapes import dims, is_constant, length


class Tile(KeepsAttributes):
    def couple(self, node: ir.Node, flow: Flow) -> None:
        repeats = ints(node, "repeats", 1)
        axes = flow.of(node.inputs[0])
        if repeats is None:
            flow.pin_inputs(node, "PC104", "the repeats are computed at run time")
            outputs_untracked(node, flow)
            return
        flow.set(
            node.outputs[0], [ids if ids is None else np.tile(ids, r) for ids, r in zip(axes, repeats, strict=True)]
        )


class Expand:
    """A broadcast axis gets free ids: whatever it meets decides, and the target shape is rewritten."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        axes, shape, output = flow.of(node.inputs[0]), dims(node.inputs[0]), dims(node.outputs[0])
        if is_constant(node.inputs[0]) and output is not None:
            axes = table_axes(node.inputs[0], flow)
            flow.use(node, 0, axes, "carrier")
        if shape is None or output is None:
            flow.pin_inputs(node, "PC104", "the shape is computed at run time")
            return
        result: Axes = [*([None] * (len(output) - len(axes))), *axes]
        for axis, dim in enumerate(output):
            inner = axis - len(output)
            was = length(node.inputs[0], inner) if -inner <= len(shape) else 1
            if result[axis] is None and was == 1 and isinstance(dim, int) and dim > 1:
                result[axis] = flow.free(dim)
        flow.set(node.outputs[0], result)

    def cut(self, node: ir.Node, cut: Cut) -> None:
        target, output = length(node.inputs[1], 0) or 0, dims(node.outputs[0]) or ()
        shift = len(output) - target
        cut.patch_shape(node, 1, node.outputs[0], [i + shift for i in range(target)])
