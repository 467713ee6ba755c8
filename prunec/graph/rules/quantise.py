"""Quantisers: ids pass through, and scales and zero points per channel follow their axis.

A dead channel is the quantised zero. DynamicQuantizeLinear takes its scale from the range of all values, which always
includes 0: a channel that is zero at its input changes neither scale nor zero point, so that is where the masked
reference masks it, and the cut is exact. Operators on integers (`QLinear…`) carry channels like their float namesakes.
"""

from __future__ import annotations

import onnx_ir as ir

from prunec.graph.flow import STATISTIC, Axes, Flow
from prunec.graph.rules.base import KeepsAttributes, attribute, given, outputs_untracked
from prunec.graph.rules.elementwise import aligned, merge_axis
from prunec.graph.shapes import dims
from prunec.graph.weights import blocks_fit, is_weight, quantised_axis


class Quantiser(KeepsAttributes):
    """QuantizeLinear and DequantizeLinear (x, scale, zero); a weight's ids come from its layer (`Flow.use`)."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        data, output = node.inputs[0], node.outputs[0]
        if is_weight(data):
            outputs_untracked(node, flow)
            return
        if all((dims(node.inputs[i]) or (1,)) == (1,) for i in (1, 2) if given(node, i)):
            flow.set(output, flow.raw(data))
            return
        axes = flow.of(data)
        if not blocks_fit(node):
            flow.pin(axes[quantised_axis(node)], "PC104", node, "has a last block that is shorter than the others")
        else:
            flow.along_scales(node, axes)
        flow.set(output, axes)


class DynamicQuantiser(KeepsAttributes):
    def couple(self, node: ir.Node, flow: Flow) -> None:
        axes = flow.of(node.inputs[0])
        for axis, ids in enumerate(axes):
            flow.reduce(node, 0, axis, ids)
        outputs_untracked(node, flow)
        flow.set(node.outputs[0], axes)


class QLinearBinary(KeepsAttributes):
    """(a, scale, zero, b, scale, zero, scale, zero), broadcast like Add."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        values = [node.inputs[0], node.inputs[3]]
        shapes = [dims(value) for value in values]
        if any(shape is None for shape in shapes):
            flow.pin_inputs(node, "PC104", "the rank of an operand is unknown")
            outputs_untracked(node, flow)
            return
        n = max(len(shape or ()) for shape in shapes)
        axes: Axes = [merge_axis(node, flow, axis - n, values) for axis in range(n)]
        for index in (0, 3):
            if is_weight(node.inputs[index]):
                flow.use(node, index, aligned(axes, dims(node.inputs[index]) or ()), "carrier")
        flow.set(node.outputs[0], axes)


class QLinearUnary(KeepsAttributes):
    """(x, scale, zero, …): activations."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        flow.set(node.outputs[0], flow.raw(node.inputs[0]))


class QLinearSoftmax(KeepsAttributes):
    def couple(self, node: ir.Node, flow: Flow) -> None:
        axes = flow.of(node.inputs[0])
        along = int(attribute(node, "axis", -1)) % max(len(axes), 1)
        for axis in range(along, len(axes)) if int(attribute(node, "opset", 13)) < 13 else [along]:
            flow.pin(axes[axis], STATISTIC, node, "QLinearSoftmax takes its statistic over this axis")
        flow.set(node.outputs[0], axes)


class QLinearPool(KeepsAttributes):
    """[N, C, …], or [N, …, C] with `channels_last`: windows run over the other axes."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        axes = flow.of(node.inputs[0])
        channel = len(axes) - 1 if attribute(node, "channels_last", 0) else 1
        for axis, ids in enumerate(axes):
            if axis not in (0, channel):
                flow.pin(ids, "PC107", node, "a spatial axis of a pool cannot be cut")
        flow.set(node.outputs[0], [ids if axis in (0, channel) else None for axis, ids in enumerate(axes)])


class QLinearConcat(KeepsAttributes):
    """(scale, zero, then x, scale, zero of each part)."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        from prunec.graph.rules.move import concat

        concat(node, flow, range(2, len(node.inputs), 3))


class QLinearReduceMean(KeepsAttributes):
    def couple(self, node: ir.Node, flow: Flow) -> None:
        axes = flow.of(node.inputs[0])
        reduced = {int(a) % len(axes) for a in attribute(node, "axes", range(len(axes)))}
        keep = bool(attribute(node, "keepdims", 1))
        for axis in reduced:
            flow.pin(axes[axis], STATISTIC, node, "QLinearReduceMean takes its statistic over this axis")
        left = [None if a in reduced else ids for a, ids in enumerate(axes) if keep or a not in reduced]
        flow.set(node.outputs[0], left)
