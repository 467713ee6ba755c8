"""Convolutions: the weight's output axis makes new channels, its input axis consumes the data's.

Conv weight [M, C/g, k…]; ConvTranspose weight [C, M/g, k…]. With g groups, position j of every group is united, so
that each group keeps the same number of channels; a depthwise convolution only carries channels through.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunec.graph.flow import Axes, Flow, Ids
from prunec.graph.rules.base import attribute, given
from prunec.graph.rules.cut import Cut
from prunec.graph.shapes import dims, length
from prunec.graph.weights import is_weight


class Conv:
    out_axis, in_axis = 0, 1
    weight = 1
    vectors: tuple[int, ...] = (2,)
    """Inputs with one value per output channel, or a single one."""
    zero: int | None = None
    """The input that is the zero point of quantised data."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        axes = flow.of(node.inputs[0])
        shape = dims(node.inputs[self.weight])
        constants = [is_weight(node.inputs[i]) for i in (self.weight, *self.vectors) if given(node, i)]
        if not all(constants) or shape is None or len(axes) != len(shape):
            flow.pin_inputs(node, "PC106", f"the weight of {node.op_type} is computed at run time")
            return
        for ids in axes[2:]:
            flow.pin(ids, "PC107", node, "a spatial axis of a convolution cannot be cut")
        groups = int(attribute(node, "group", 1))
        per_group = [int(s) for s in shape[:2]]  # type: ignore[arg-type]
        channels_in, channels_out = self._channels(per_group, groups)
        if groups == 1:
            out, weight_axes = self._plain(node, flow, axes[1], channels_in, channels_out)
        elif channels_in == groups:
            out, weight_axes = self._depthwise(flow, axes[1], groups, channels_out)
        else:
            out, weight_axes = self._grouped(node, flow, axes[1], groups, channels_in, channels_out)
        is_carrier = groups > 1 and channels_in == groups
        roles = ["carrier", "carrier"] if is_carrier else ["consumer", "consumer"]
        if not is_carrier:
            roles[self.out_axis] = "producer"
        rest: Axes = [None] * (len(shape) - 2)
        flow.use(node, self.weight, [*weight_axes, *rest], [*roles, *(["carrier"] * len(rest))])  # type: ignore[list-item]
        for index in self.vectors:
            if given(node, index) and dims(node.inputs[index]) and length(node.inputs[index], 0) == channels_out:
                flow.use(node, index, [out], "carrier")
        flow.set(node.outputs[0], [axes[0], out, *rest])

    def _channels(self, per_group: list[int], groups: int) -> tuple[int, int]:
        return per_group[1] * groups, per_group[0]

    def _axes(self, out: Ids, consumed: Ids) -> Axes:
        return [out, consumed] if self.out_axis == 0 else [consumed, out]

    def _plain(self, node: ir.Node, flow: Flow, ids: Ids, channels_in: int, channels_out: int) -> tuple[Ids, Axes]:
        flow.reduce(node, 0, 1, ids, (self.weight, self.in_axis), self.zero)
        out = flow.fresh(channels_out)
        return out, self._axes(out, ids)

    def _depthwise(self, flow: Flow, ids: Ids, groups: int, channels_out: int) -> tuple[Ids, Axes]:
        out = None if ids is None else np.repeat(ids, channels_out // groups)
        return out, [out, None] if self.out_axis == 0 else [ids, None]

    def _grouped(
        self, node: ir.Node, flow: Flow, ids: Ids, groups: int, channels_in: int, channels_out: int
    ) -> tuple[Ids, Axes]:
        out = np.tile(flow.fresh(channels_out // groups), groups)
        if ids is None:
            return out, self._axes_grouped(out, None, None, groups)
        by_group = ids.reshape(groups, channels_in // groups)
        flow.unite(by_group[:1], by_group)
        flow.reduce(node, 0, 1, ids, (self.weight, self.in_axis), self.zero)
        return out, self._axes_grouped(out, by_group[0], ids, groups)

    def _axes_grouped(self, out: np.ndarray, first_group: Ids, ids: Ids, groups: int) -> Axes:
        return [out, first_group]

    def cut(self, node: ir.Node, cut: Cut) -> None:
        """A depthwise convolution has as many groups as input channels are left."""
        left = cut.count(node.inputs[0], 1)
        shape = dims(node.inputs[0])
        if left is not None and shape is not None and int(attribute(node, "group", 1)) == shape[1] != 1:
            node.attributes["group"] = ir.AttrInt64("group", left)


class QLinearConv(Conv):
    """(x, scale, zero, w, scale, zero, scale, zero, b): integers in and out, the padding is the zero point."""

    weight, vectors, zero = 3, (4, 5, 8), 2


class ConvInteger(Conv):
    """(x, w, zero, zero) → int32; the data's zero point may be computed at run time."""

    weight, vectors, zero = 1, (3,), 2


class FusedConv(Conv):
    """Conv, plus a residual Z at input 3, then an activation: what ONNX Runtime's optimizer makes of the three."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        super().couple(node, flow)
        if not given(node, 3):
            return
        made, added = flow.of(node.outputs[0]), flow.of(node.inputs[3])
        for own, other in zip(made, added, strict=True):
            if own is not None and other is not None:
                flow.unite(own, other)
            else:
                for ids in (own, other):
                    flow.pin(ids, "PC103", node, "is added to an axis that cannot be cut")


class ConvTranspose(Conv):
    out_axis, in_axis = 1, 0

    def _channels(self, per_group: list[int], groups: int) -> tuple[int, int]:
        return per_group[0], per_group[1] * groups

    def _depthwise(self, flow: Flow, ids: Ids, groups: int, channels_out: int) -> tuple[Ids, Axes]:
        out = None if ids is None else np.repeat(ids, channels_out // groups)
        return out, [ids, None]

    def _axes_grouped(self, out: np.ndarray, first_group: Ids, ids: Ids, groups: int) -> Axes:
        return [ids, out[: len(out) // groups]]
