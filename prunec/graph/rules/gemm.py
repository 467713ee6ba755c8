"""Matrix products: Gemm, and MatMul with one constant operand or none.

The contracted axis consumes channels; the free axis of a constant operand makes new ones, and so do its batch axes
(a stack of experts) where the data has length 1. Between two activations the contracted ids are united (both sides
lose the same positions) and the free axes pass through. Products of integers (QLinearMatMul, MatMulInteger, QGemm)
only have their operands elsewhere.
"""

from __future__ import annotations

import onnx_ir as ir

from prunec.graph.flow import Axes, Flow, Ids, Role
from prunec.graph.rules.base import KeepsAttributes, attribute, given, outputs_untracked, rank
from prunec.graph.rules.elementwise import aligned, merge_axis
from prunec.graph.rules.heads import couple_heads
from prunec.graph.shapes import dims, length
from prunec.graph.weights import is_weight


class Gemm(KeepsAttributes):
    """Y = A' B' + C with A [M, K], B [K, N] or their transposes."""

    weight, bias = 1, 2
    vectors: tuple[int, ...] = ()
    zero: int | None = None

    def couple(self, node: ir.Node, flow: Flow) -> None:
        a, b = node.inputs[0], node.inputs[self.weight]
        axes = flow.of(a)
        shape = dims(b)
        if is_weight(a) or not is_weight(b) or shape is None:
            flow.pin_inputs(node, "PC106", f"the weight of {node.op_type} is computed at run time")
            return
        rows, inner = (1, 0) if attribute(node, "transA", 0) else (0, 1)
        in_axis, out_axis = (1, 0) if attribute(node, "transB", 0) else (0, 1)
        flow.reduce(node, 0, inner, axes[inner], (self.weight, in_axis), self.zero)
        out = flow.fresh(int(shape[out_axis]))  # type: ignore[arg-type]
        weight_axes: Axes = [None, None]
        weight_axes[in_axis], weight_axes[out_axis] = axes[inner], out
        flow.use(node, self.weight, weight_axes, ["consumer", "producer"] if in_axis == 0 else ["producer", "consumer"])
        for index in self.vectors:
            use_vector(node, flow, index, out)
        result = [axes[rows], out]
        if given(node, self.bias):
            self._bias(node, flow, result)
        flow.set(node.outputs[0], result)

    def _bias(self, node: ir.Node, flow: Flow, result: Axes) -> None:
        bias = node.inputs[self.bias]
        shape = dims(bias)
        if not is_weight(bias) or shape is None:
            for ids in [*result, *flow.of(bias)]:
                flow.pin(ids, "PC106", node, f"the addend of {node.op_type} is computed at run time")
            return
        flow.use(node, self.bias, aligned(result, shape), "carrier")


class QGemm(Gemm):
    """ONNX Runtime's (a, scale, zero, b, scale, zero, c, scale, zero)."""

    weight, bias, vectors, zero = 3, 6, (4, 5), 2


class MatMul(KeepsAttributes):
    """Y[…, M, N] = A[…, M, K] B[…, K, N]; 1-D operands are pinned."""

    operands = (0, 1)
    zeros: tuple[int | None, int | None] = (None, None)
    """Inputs that are the zero points of A and B."""
    vectors: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    """Inputs with one value per row of A and per column of B."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        a, b = (node.inputs[i] for i in self.operands)
        ranks = rank(a), rank(b)
        if None in ranks or min(r or 0 for r in ranks) < 2 or (is_weight(a) and is_weight(b)):
            flow.pin_inputs(node, "PC104", f"{node.op_type} of a vector, of an unknown rank or of two constants")
            outputs_untracked(node, flow)
        elif is_weight(a) or is_weight(b):
            self._weight(node, flow, 0 if is_weight(a) else 1)
        else:
            self._activations(node, flow)

    def sides(self, node: ir.Node) -> tuple[tuple[int, int], tuple[int, int]]:
        """(free axis, contracted axis) of A and of B, counted from the right."""
        return (-2, -1), (-1, -2)

    def _weight(self, node: ir.Node, flow: Flow, side: int) -> None:
        data, weight = self.operands[1 - side], self.operands[side]
        (free, contracted), (data_free, data_contracted) = self.sides(node)[side], self.sides(node)[1 - side]
        data_axes, shape = flow.of(node.inputs[data]), dims(node.inputs[weight])
        assert shape is not None
        consumed = data_axes[data_contracted]
        n = len(shape)
        place = (weight, n + contracted)
        flow.reduce(node, data, len(data_axes) + data_contracted, consumed, place, self.zeros[1 - side])
        out = flow.fresh(int(shape[free]))  # type: ignore[arg-type]
        batch = self._batch(node, flow)
        weight_axes: Axes = [None] * n
        roles: list[Role] = ["carrier"] * n
        for axis in range(n - 2):
            place_in_batch = len(batch) - (n - 2) + axis
            if batch[place_in_batch] is None and self._stacks(node, data, weight, axis):
                batch[place_in_batch] = flow.fresh(int(shape[axis]))  # type: ignore[arg-type]
                roles[axis] = "producer"
            ids = batch[place_in_batch]
            weight_axes[axis] = ids if ids is not None and len(ids) == shape[axis] else None
        weight_axes[contracted], weight_axes[free] = consumed, out
        roles[contracted], roles[free] = "consumer", "producer"
        flow.use(node, weight, weight_axes, roles)
        for own, ids in ((side, out), (1 - side, data_axes[data_free])):
            for index in self.vectors[own]:
                use_vector(node, flow, index, ids)
        result: Axes = [*batch, None, None]
        result_free, result_data = (-1, -2) if side == 1 else (-2, -1)
        result[result_free], result[result_data] = out, data_axes[data_free]
        flow.set(node.outputs[0], result)

    def _stacks(self, node: ir.Node, data: int, weight: int, axis: int) -> bool:
        """Whether a batch axis of the weight multiplies data that is the same for all its positions."""
        behind = axis - (rank(node.inputs[weight]) or 0)
        there = -behind <= (rank(node.inputs[data]) or 0)
        lengths = length(node.inputs[weight], axis), length(node.inputs[data], behind) if there else 1
        return lengths[0] is not None and lengths[0] > 1 and lengths[1] == 1

    def _activations(self, node: ir.Node, flow: Flow) -> None:
        if flow.apart and self.zeros == (None, None) and couple_heads(node, flow, self.operands, self.sides(node)):
            return
        left, right = (flow.of(node.inputs[i]) for i in self.operands)
        (left_free, left_in), (right_free, right_in) = self.sides(node)
        inner_left, inner_right = left[left_in], right[right_in]
        if inner_left is not None and inner_right is not None:
            flow.unite(inner_left, inner_right)
            flow.reduce(node, self.operands[0], len(left) + left_in, inner_left, zero_index=self.zeros[0])
            flow.reduce(node, self.operands[1], len(right) + right_in, inner_right, zero_index=self.zeros[1])
        else:
            for ids in (inner_left, inner_right):
                flow.pin(ids, "PC103", node, "is contracted with an axis that cannot be cut")
        for indices, ids in zip(self.vectors, (left[left_free], right[right_free]), strict=True):
            for index in indices:
                use_vector(node, flow, index, ids)
        flow.set(node.outputs[0], [*self._batch(node, flow), left[left_free], right[right_free]])

    def _batch(self, node: ir.Node, flow: Flow) -> list[Ids]:
        """Ids of the leading axes, united over both operands where both are activations."""
        values = [node.inputs[i] for i in self.operands]
        batch = max(rank(value) or 0 for value in values) - 2
        return [merge_axis(node, flow, axis - batch - 2, values) for axis in range(batch)]


class FusedMatMul(MatMul):
    """ONNX Runtime's α · A' B', either operand transposed; transposed batches are pinned."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        if attribute(node, "transBatchA", 0) or attribute(node, "transBatchB", 0):
            flow.pin_inputs(node, "PC101", "FusedMatMul with transposed batches has no channel rule")
            outputs_untracked(node, flow)
        else:
            super().couple(node, flow)

    def sides(self, node: ir.Node) -> tuple[tuple[int, int], tuple[int, int]]:
        left = (-1, -2) if attribute(node, "transA", 0) else (-2, -1)
        return left, (-2, -1) if attribute(node, "transB", 0) else (-1, -2)


class QLinearMatMul(MatMul):
    """(a, scale, zero, b, scale, zero, scale, zero)."""

    operands, zeros, vectors = (0, 3), (2, 5), ((1, 2), (4, 5))


class MatMulInteger(MatMul):
    """(a, b, zero, zero) → int32."""

    zeros, vectors = (2, 3), ((2,), (3,))


def use_vector(node: ir.Node, flow: Flow, index: int, out: Ids) -> None:
    """A scale or zero point with one value per position of `out` follows it; computed ones pin it."""
    if not given(node, index) or out is None:
        return
    value = node.inputs[index]
    shape = dims(value)
    if shape is None or len(shape) > 1:
        flow.pin(out, "PC106", node, "has scales of an unknown or higher rank")
    elif len(shape) == 1 and shape[0] != 1:
        if is_weight(value) and shape[0] == len(out):
            flow.use(node, index, [out], "carrier")
        else:
            flow.pin(out, "PC106", node, "has scales that are computed at run time")
