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
from prunec.graph.shapes import dims, is_constant


class Conv:
    out_axis, in_axis = 0, 1

    def couple(self, node: ir.Node, flow: Flow) -> None:
        data, weight = node.inputs[0], node.inputs[1]
        axes = flow.of(data)
        shape = dims(weight)
        constants = [is_constant(value) for value in node.inputs[1:] if value is not None]
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
        flow.use(node, 1, [*weight_axes, *rest], [*roles, *(["carrier"] * len(rest))])  # type: ignore[list-item]
        if given(node, 2):
            flow.use(node, 2, [out], "carrier")
        flow.set(node.outputs[0], [axes[0], out, *rest])

    def _channels(self, per_group: list[int], groups: int) -> tuple[int, int]:
        return per_group[1] * groups, per_group[0]

    def _axes(self, out: Ids, consumed: Ids) -> Axes:
        return [out, consumed] if self.out_axis == 0 else [consumed, out]

    def _plain(self, node: ir.Node, flow: Flow, ids: Ids, channels_in: int, channels_out: int) -> tuple[Ids, Axes]:
        flow.reduce(node, 0, 1, ids, (1, self.in_axis))
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
        flow.reduce(node, 0, 1, ids, (1, self.in_axis))
        return out, self._axes_grouped(out, by_group[0], ids, groups)

    def _axes_grouped(self, out: np.ndarray, first_group: Ids, ids: Ids, groups: int) -> Axes:
        return [out, first_group]

    def cut(self, node: ir.Node, cut: Cut) -> None:
        """A depthwise convolution has as many groups as input channels are left."""
        left = cut.count(node.inputs[0], 1)
        shape = dims(node.inputs[0])
        if left is not None and shape is not None and int(attribute(node, "group", 1)) == shape[1] != 1:
            node.attributes["group"] = ir.AttrInt64("group", left)


class ConvTranspose(Conv):
    out_axis, in_axis = 1, 0

    def _channels(self, per_group: list[int], groups: int) -> tuple[int, int]:
        return per_group[0], per_group[1] * groups

    def _depthwise(self, flow: Flow, ids: Ids, groups: int, channels_out: int) -> tuple[Ids, Axes]:
        out = None if ids is None else np.repeat(ids, channels_out // groups)
        return out, [ids, None]

    def _axes_grouped(self, out: np.ndarray, first_group: Ids, ids: Ids, groups: int) -> Axes:
        return [ids, out[: len(out) // groups]]
