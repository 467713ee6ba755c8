"""Reductions, softmax and layer normalisation: what goes over whole rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from prunec.backends.cpu.kernels.base import Access
from prunec.backends.cpu.kernels.rows import LayerNorm, Reduce, ReduceOuter, Reduction, Softmax
from prunec.backends.cpu.lower.moves import ints
from prunec.backends.cpu.lower.program import Tensor
from prunec.backends.cpu.lower.state import State, Unsupported, shape_of
from prunec.backends.cpu.lower.views import reshaped, transposed

Lowered = Sequence[ir.Node]


def global_pool(state: State, node: ir.Node) -> Lowered:
    x = state.tensor(node.inputs[0])
    axes = tuple(range(2, len(x.shape)))
    return _reduce(state, node, axes, "mean" if node.op_type == "GlobalAveragePool" else "max")


REDUCTIONS: dict[str, Reduction] = {
    "ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "max", "ReduceMin": "min", "ReduceL1": "l1",
    "ReduceL2": "l2", "ReduceSumSquare": "sum_square", "ReduceProd": "prod",
}  # fmt: skip


def reduction(state: State, node: ir.Node) -> Lowered:
    rank = len(shape_of(node.inputs[0]))
    axes = ints(node, 1, "axes")
    if axes is None and node.attributes.get_int("noop_with_empty_axes", 0) != 0:
        raise Unsupported("a reduction that does nothing")
    chosen = tuple(range(rank)) if not axes else tuple(sorted(axis % rank for axis in axes))
    return _reduce(state, node, chosen, REDUCTIONS[node.op_type])


def _reduce(state: State, node: ir.Node, axes: tuple[int, ...], kind: Reduction) -> Lowered:
    x = state.tensor(node.inputs[0])
    if x.dtype != "float32":
        raise Unsupported(f"a reduction of {x.dtype}")
    rest = [axis for axis in range(len(x.shape)) if axis not in axes]
    y = state.plain([x.shape[axis] for axis in rest], "float32")
    if rest and x.strides[rest[-1]] != 1 and x.strides[axes[-1]] != 1:  # channels last: the dense axis to the end
        dense = [axis for axis in rest if x.strides[axis] == 1 and x.shape[axis] != 1]
        rest = [axis for axis in rest if axis not in dense] + dense
    order = [*rest, *axes]
    outer = x.shape[rest[-1]] if rest else 1
    is_outer = bool(rest) and x.strides[rest[-1]] == 1 and outer > 1 and len(axes) <= 2
    named = {axis: place for place, axis in enumerate(a for a in range(len(x.shape)) if a not in axes)}
    if is_outer:
        leading = rest[:-1]
        ordered = [x.shape[axis] for axis in leading]
        if len([n for n in ordered if n != 1]) <= 1:
            first = next((axis for axis in leading if x.shape[axis] != 1), None)
            own = [None] * (2 - len(axes)) + list(axes)
            source = x.access([first, *own, rest[-1]])
            target = y.access([None if first is None else named[first], named[rest[-1]]])
            extents = tuple(1 if axis is None else x.shape[axis] for axis in own)
            kernel: ReduceOuter | Reduce = ReduceOuter(
                1 if first is None else x.shape[first], (extents[0], extents[1]), outer, source, target, kind
            )
            state.emit(kernel, [x.buffer, y.buffer], [node])
            _define_reduced(state, node, y)
            return [node]
    view = transposed(x, order)
    shape = [*(x.shape[axis] for axis in rest), math.prod(x.shape[axis] for axis in axes)]
    rows = reshaped(view, shape)
    if rows is None:
        rows = reshaped(state.copy(view, state.plain(view.shape, "float32")), shape)
    assert rows is not None
    loops = tuple(range(len(rest)))
    kernel = Reduce(
        tuple(x.shape[axis] for axis in rest) or (1,), rows.shape[-1],
        rows.access([*(loops or [None]), len(rest)]), y.access([named[axis] for axis in rest] or [None]), kind,
    )  # fmt: skip
    state.emit(kernel, [rows.buffer, y.buffer], [node])
    _define_reduced(state, node, y)
    return [node]


def _define_reduced(state: State, node: ir.Node, y: Tensor) -> None:
    result = reshaped(y, shape_of(node.outputs[0]))
    assert result is not None
    state.define(node.outputs[0], result)


def softmax(state: State, node: ir.Node) -> Lowered:
    x = state.tensor(node.inputs[0])
    axis = (node.attributes.get_int("axis", -1) or 0) % len(x.shape)
    if x.dtype != "float32":
        raise Unsupported(f"a softmax of {x.dtype}")
    order = [a for a in range(len(x.shape)) if a != axis] + [axis]
    back = [order.index(a) for a in range(len(x.shape))]
    x = transposed(x, order)
    if x.strides[-1] != 1:
        x = state.copy(x, state.plain(x.shape, "float32"))
    y = state.plain(x.shape, "float32")
    loops = list(range(len(x.shape) - 1))
    kernel = Softmax(x.shape[:-1] or (1,), x.shape[-1], _row_access(x, loops), _row_access(y, loops))
    state.emit(kernel, [x.buffer, y.buffer], [node])
    state.define(node.outputs[0], transposed(y, back))
    return [node]


def _row_access(x: Tensor, loops: list[int]) -> Access:
    """Strides of the loops around a row, and 1 along it, even where the row has one element."""
    strides = [x.strides[axis] for axis in loops] or [0]
    return Access(x.buffer.elements, x.offset, (*strides, 1), x.dtype)


def layer_norm(state: State, node: ir.Node) -> Lowered:
    x = state.tensor(node.inputs[0])
    axis = (node.attributes.get_int("axis", -1) or 0) % len(x.shape)
    if axis != len(x.shape) - 1 or any(v.uses() for v in node.outputs[1:]):
        raise Unsupported("a layer norm over several axes, or one whose mean is read")
    if x.strides[-1] != 1:
        x = state.copy(x, state.plain(x.shape, "float32"))
    y = state.plain(x.shape, "float32")
    scale = state.tensor(node.inputs[1])
    has_shift = len(node.inputs) > 2 and node.inputs[2] is not None
    shift = state.tensor(node.inputs[2]) if has_shift else state.weights(np.zeros(x.shape[-1], np.float32))
    if scale.size != x.shape[-1] or not scale.is_plain() or not shift.is_plain():
        raise Unsupported("a layer norm whose scale is broadcast")
    loops = list(range(len(x.shape) - 1))
    kernel = LayerNorm(
        x.shape[:-1] or (1,), x.shape[-1], _row_access(x, loops), _row_access(y, loops),
        node.attributes.get_float("epsilon", 1e-5) or 0.0,
    )  # fmt: skip
    state.emit(kernel, [x.buffer, scale.buffer, shift.buffer, y.buffer], [node])
    state.define(node.outputs[0], y)
    return [node]
