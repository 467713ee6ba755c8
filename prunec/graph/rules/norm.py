"""Normalisations. Per-channel ones carry channels; those whose statistic runs over the channels change it (class C).

Class C axes are pinned: removing channels changes the mean and variance of those that stay. On demand
(`Flow.residual`) the norms of transformers, which scale and shift single channels of one axis, let them go instead.
"""

from __future__ import annotations

import onnx_ir as ir

from prunec.graph.flow import STATISTIC, Axes, Flow
from prunec.graph.rules.base import KeepsAttributes, attribute, given
from prunec.graph.shapes import dims
from prunec.graph.weights import is_weight

REDUCIBLE = frozenset({"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"})
"""Norms of one axis whose statistic is a mean: it can run over the channels that are left."""


class BatchNorm(KeepsAttributes):
    """Scale, bias, mean and variance follow axis 1."""

    vectors: tuple[int, ...] = (1, 2, 3, 4)

    def couple(self, node: ir.Node, flow: Flow) -> None:
        axes = flow.of(node.inputs[0])
        used = [i for i in self.vectors if given(node, i)]
        if len(axes) < 2 or not all(is_weight(node.inputs[i]) for i in used):
            flow.pin_inputs(node, "PC106", f"the parameters of {node.op_type} are computed at run time")
            return
        for index in used:
            flow.use(node, index, [axes[1]], "carrier")
        self._others(node, flow, axes)
        flow.set(node.outputs[0], axes)

    def _others(self, node: ir.Node, flow: Flow, axes: Axes) -> None:
        """Inference uses stored statistics, so the other axes are free."""


class InstanceNorm(BatchNorm):
    """Statistics run over the spatial axes of each channel."""

    vectors = (1, 2)

    def _others(self, node: ir.Node, flow: Flow, axes: Axes) -> None:
        for ids in axes[2:]:
            flow.pin(ids, STATISTIC, node, "InstanceNormalization takes its statistic over this axis")


class OverAxes(KeepsAttributes):
    """LayerNormalization, Softmax and their kin: the normalised axes are class C, the others pass through."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        axes = flow.of(node.inputs[0])
        n = len(axes)
        first = int(attribute(node, "axis", -1))
        first += n if first < 0 else 0
        to_the_end = node.op_type in ("LayerNormalization", "RMSNormalization") or (
            node.op_type in ("Softmax", "LogSoftmax", "Hardmax") and (node.version or 13) < 13
        )
        reason = f"{node.op_type} takes its statistic over this axis"
        if first == n - 1 and _is_reducible(node):
            flow.statistic(node, 0, first, axes[first], reason)
            for index in (i for i in range(1, len(node.inputs)) if flow.residual and given(node, i)):
                flow.use(node, index, [axes[first]], "carrier")
        elif node.op_type == "Softmax" and (first == n - 1 or not to_the_end):
            flow.rank(node, 0, first, axes[first], reason)
        else:
            for axis in range(first, n if to_the_end else min(first + 1, n)):
                flow.pin(axes[axis], STATISTIC, node, reason)
        flow.set(node.outputs[0], axes)
        for output in node.outputs[1:]:
            flow.set(output, [None] * len(dims(output) or ()))


def _is_reducible(node: ir.Node) -> bool:
    """Scale and bias are constant vectors, and nobody reads the statistics."""
    vectors = node.inputs[1:]
    constant = all(value is None or (is_weight(value) and len(dims(value) or ()) == 1) for value in vectors)
    unread = not any(output.uses() or output.is_graph_output() for output in node.outputs[1:])
    return node.op_type in REDUCIBLE and constant and unread


class AcrossChannels(KeepsAttributes):
    """LRN and GroupNormalization mix neighbouring channels; every tracked axis is class C."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        flow.pin_inputs(node, STATISTIC, f"{node.op_type} takes its statistic across channels")
        flow.set(node.outputs[0], flow.of(node.inputs[0]))
