"""ONNX Runtime's norms with an addition inside: x + skip (+ bias) → norm, and the sum of embeddings → norm.

The statistic runs over the last axis, which is class C; everything that is added up goes together. On demand the
skip norms, like the plain ones, take it over the channels that are left.
"""

from __future__ import annotations

import onnx_ir as ir

from prunec.graph.flow import STATISTIC, Axes, Flow
from prunec.graph.rules.base import KeepsAttributes, given, outputs_untracked, rank
from prunec.graph.rules.elementwise import aligned, merge_axis
from prunec.graph.shapes import dims
from prunec.graph.weights import is_weight


class SkipNorm(KeepsAttributes):
    """SkipLayerNormalization and its kin: (x, skip, γ, β, bias) → norm, mean, 1/σ, and the sum itself."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        added = [node.inputs[0], node.inputs[1]]
        n = rank(added[0])
        if n is None or any(rank(value) is None for value in added):
            flow.pin_inputs(node, "PC104", "the rank of an operand is unknown")
            outputs_untracked(node, flow)
            return
        axes: Axes = [merge_axis(node, flow, axis - n, added) for axis in range(n)]
        reason = f"{node.op_type} takes its statistic over this axis"
        if _is_reducible(node):
            flow.statistic(node, 0, n - 1, axes[-1], reason)
        else:
            flow.pin(axes[-1], STATISTIC, node, reason)
        for index, value in enumerate(node.inputs):
            if value is not None and is_weight(value):
                flow.use(node, index, aligned(axes, dims(value) or ()), "carrier")
        outputs_untracked(node, flow)
        flow.set(node.outputs[0], axes)
        if len(node.outputs) > 3:
            flow.set(node.outputs[3], axes)


def _is_reducible(node: ir.Node) -> bool:
    """γ, β and bias are constants, and nobody reads the mean or the deviation."""
    unread = not any(output.uses() or output.is_graph_output() for output in node.outputs[1:3])
    return unread and all(value is None or is_weight(value) for value in node.inputs[2:])


class EmbedNorm(KeepsAttributes):
    """EmbedLayerNormalization: (tokens, segments, three tables, γ, β, mask, positions) → norm, mask, sum."""

    tables, vectors = (2, 3, 4), (5, 6)

    def couple(self, node: ir.Node, flow: Flow) -> None:
        used = [i for i in (*self.tables, *self.vectors) if given(node, i)]
        width = (dims(node.inputs[2]) or (None,))[-1]
        if not isinstance(width, int) or not all(is_weight(node.inputs[i]) for i in used):
            flow.pin_inputs(node, "PC106", f"the tables of {node.op_type} are computed at run time")
            outputs_untracked(node, flow)
            return
        made = flow.fresh(width)
        flow.pin(made, STATISTIC, node, f"{node.op_type} takes its statistic over this axis")
        for index in used:
            is_table = index in self.tables
            flow.use(node, index, [None, made] if is_table else [made], "producer" if is_table else "carrier")
        outputs_untracked(node, flow)
        flow.set(node.outputs[0], [None, None, made])
        if len(node.outputs) > 2:
            flow.set(node.outputs[2], [None, None, made])
