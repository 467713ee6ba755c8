"""Matrix products: Gemm, and MatMul with one constant operand or none.

The contracted axis consumes channels; the free axis of a constant operand makes new ones. Between two activations
the contracted ids are united (both sides lose the same positions) and the free axes pass through.
"""

from __future__ import annotations

import onnx_ir as ir

from prunec.graph.flow import Axes, Flow, Ids
from prunec.graph.rules.base import KeepsAttributes, attribute, given, outputs_untracked, rank
from prunec.graph.rules.elementwise import aligned, merge_axis
from prunec.graph.shapes import dims, is_constant


class Gemm(KeepsAttributes):
    """Y = A' B' + C with A [M, K], B [K, N] or their transposes."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        a, b = node.inputs[0], node.inputs[1]
        axes = flow.of(a)
        shape = dims(b)
        if is_constant(a) or not is_constant(b) or shape is None:
            flow.pin_inputs(node, "PC106", "the weight of Gemm is computed at run time")
            return
        rows, inner = (1, 0) if attribute(node, "transA", 0) else (0, 1)
        in_axis, out_axis = (1, 0) if attribute(node, "transB", 0) else (0, 1)
        flow.reduce(node, 0, inner, axes[inner], (1, in_axis))
        out = flow.fresh(int(shape[out_axis]))  # type: ignore[arg-type]
        weight_axes: Axes = [None, None]
        weight_axes[in_axis], weight_axes[out_axis] = axes[inner], out
        flow.use(node, 1, weight_axes, ["consumer", "producer"] if in_axis == 0 else ["producer", "consumer"])
        result = [axes[rows], out]
        if given(node, 2):
            self._bias(node, flow, result)
        flow.set(node.outputs[0], result)

    def _bias(self, node: ir.Node, flow: Flow, result: Axes) -> None:
        bias = node.inputs[2]
        shape = dims(bias)
        if not is_constant(bias) or shape is None:
            for ids in [*result, *flow.of(bias)]:
                flow.pin(ids, "PC106", node, "the addend of Gemm is computed at run time")
            return
        flow.use(node, 2, aligned(result, shape), "carrier")


class MatMul(KeepsAttributes):
    """Y[…, M, N] = A[…, M, K] B[…, K, N]; 1-D operands are pinned."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        a, b = node.inputs[0], node.inputs[1]
        ranks = rank(a), rank(b)
        if None in ranks or min(r or 0 for r in ranks) < 2 or (is_constant(a) and is_constant(b)):
            flow.pin_inputs(node, "PC104", "MatMul of a vector, of an unknown rank or of two constants")
            outputs_untracked(node, flow)
            return
        if is_constant(b) and not is_constant(a):
            self._weight(node, flow, weight=1, free=-1, contracted=-2)
        elif is_constant(a):
            self._weight(node, flow, weight=0, free=-2, contracted=-1)
        else:
            self._activations(node, flow)

    def _weight(self, node: ir.Node, flow: Flow, *, weight: int, free: int, contracted: int) -> None:
        data = 1 - weight
        data_axes, shape = flow.of(node.inputs[data]), dims(node.inputs[weight])
        assert shape is not None
        data_contracted, data_free = free, contracted
        consumed = data_axes[data_contracted]
        n = len(shape)
        flow.reduce(node, data, len(data_axes) + data_contracted, consumed, (weight, n + contracted))
        out = flow.fresh(int(shape[free]))  # type: ignore[arg-type]
        batch = self._batch(node, flow)
        weight_axes: Axes = [None] * n
        for axis in range(n - 2):
            ids = batch[len(batch) - (n - 2) + axis] if len(batch) >= n - 2 else None
            weight_axes[axis] = ids if ids is not None and len(ids) == shape[axis] else None
        weight_axes[contracted], weight_axes[free] = consumed, out
        roles = ["carrier"] * n
        roles[contracted], roles[free] = "consumer", "producer"
        flow.use(node, weight, weight_axes, roles)  # type: ignore[arg-type]
        result: Axes = [*batch, None, None]
        result[free], result[data_free] = out, data_axes[data_free]
        flow.set(node.outputs[0], result)

    def _activations(self, node: ir.Node, flow: Flow) -> None:
        left, right = flow.of(node.inputs[0]), flow.of(node.inputs[1])
        inner_left, inner_right = left[-1], right[-2]
        if inner_left is not None and inner_right is not None:
            flow.unite(inner_left, inner_right)
            flow.reduce(node, 0, len(left) - 1, inner_left)
            flow.reduce(node, 1, len(right) - 2, inner_right)
        else:
            for ids in (inner_left, inner_right):
                flow.pin(ids, "PC103", node, "is contracted with an axis that cannot be cut")
        flow.set(node.outputs[0], [*self._batch(node, flow), left[-2], right[-1]])

    def _batch(self, node: ir.Node, flow: Flow) -> list[Ids]:
        """Ids of the leading axes, united over both operands where both are activations."""
        batch = max(rank(value) or 0 for value in node.inputs) - 2
        return [merge_axis(node, flow, axis - batch - 2) for axis in range(batch)]
