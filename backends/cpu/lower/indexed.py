"""Operators whose elements are chosen by indices that the model computes; the run time does them (`routines`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from prunec.backends.cpu.expression import binary, cast, const, operand, where
from prunec.backends.cpu.lower.moves import ints
from prunec.backends.cpu.lower.program import BYTES, Tensor
from prunec.backends.cpu.lower.routines import (
    JOINS,
    MOST_DEPTH,
    TYPES,
    ArgExtreme,
    CumSum,
    GatherND,
    GatherRows,
    ScatterND,
    ScatterRows,
    TopK,
)
from prunec.backends.cpu.lower.state import State, Unsupported, shape_of
from prunec.backends.cpu.lower.views import expanded, reshaped, sliced, transposed
from prunec.graph.shapes import constant

Lowered = Sequence[ir.Node]


def _index(state: State, value: ir.Value | None) -> Tensor:
    found = state.tensor(value)
    if found.dtype not in ("int64", "int32"):
        raise Unsupported(f"indices of type {found.dtype}")
    return found


def _axis_last(x: Tensor, axis: int) -> Tensor:
    return transposed(x, [*(a for a in range(len(x.shape)) if a != axis), axis])


def _axis_back(y: Tensor, axis: int) -> Tensor:
    last = len(y.shape) - 1
    return transposed(y, [*range(axis), last, *range(axis, last)])


def _axis(node: ir.Node, default: int, rank: int) -> int:
    return (node.attributes.get_int("axis", default) or 0) % rank


def gather_nd(state: State, node: ir.Node) -> Lowered:
    table, index = state.tensor(node.inputs[0]), _index(state, node.inputs[1])
    batch, depth = node.attributes.get_int("batch_dims", 0) or 0, index.shape[-1]
    lengths = table.shape[batch : batch + depth]
    if depth > MOST_DEPTH:
        raise Unsupported(f"GatherND over {depth} axes")
    table, index = state.as_plain(table), state.as_plain(index)
    y = state.plain(shape_of(node.outputs[0]), table.dtype)
    call = GatherND(
        math.prod(table.shape[:batch]), math.prod(index.shape[batch:-1]),
        math.prod(table.shape[batch + depth :]) * BYTES[table.dtype], index.dtype == "int64", lengths,
    )  # fmt: skip
    state.emit(call, [table.buffer, index.buffer, y.buffer], [node])
    state.define(node.outputs[0], y)
    return [node]


def gather_elements(state: State, node: ir.Node) -> Lowered:
    x, index = state.tensor(node.inputs[0]), _index(state, node.inputs[1])
    axis = _axis(node, 0, len(x.shape))
    _define_gathered(state, node, x, index, axis, node.outputs[0])
    return [node]


def _define_gathered(state: State, node: ir.Node, x: Tensor, index: Tensor, axis: int, value: ir.Value) -> None:
    """y[…, i, …] = x[…, index[…, i, …], …] along `axis`."""
    for other, n in enumerate(index.shape):
        x = x if other == axis else sliced(x, other, 0, n)
    rows, index = state.as_plain(_axis_last(x, axis)), state.as_plain(_axis_last(index, axis))
    y = state.plain(index.shape, x.dtype)
    *outer, count = index.shape
    call = GatherRows(math.prod(outer), rows.shape[-1], count, BYTES[x.dtype], index.dtype == "int64")
    state.emit(call, [rows.buffer, index.buffer, y.buffer], [node])
    state.define(value, _axis_back(y, axis))


def _join(node: ir.Node, dtype: str) -> int:
    how = node.attributes.get_string("reduction", "none") or "none"
    if how != "none" and dtype != "float32":
        raise Unsupported(f"scattering {dtype} with {how}")
    return JOINS.index(how)


def scatter_nd(state: State, node: ir.Node) -> Lowered:
    x, index, updates = state.tensor(node.inputs[0]), _index(state, node.inputs[1]), state.tensor(node.inputs[2])
    depth, join = index.shape[-1], _join(node, x.dtype)
    if depth > MOST_DEPTH:
        raise Unsupported(f"ScatterND over {depth} axes")
    y = state.copy(x, state.plain(x.shape, x.dtype), [node])
    index, updates = state.as_plain(index), state.as_plain(updates)
    call = ScatterND(
        math.prod(index.shape[:-1]), math.prod(x.shape[depth:]), BYTES[x.dtype], index.dtype == "int64", join,
        x.shape[:depth],
    )  # fmt: skip
    state.emit(call, [index.buffer, updates.buffer, y.buffer], [node])
    state.define(node.outputs[0], y)
    return [node]


def scatter_elements(state: State, node: ir.Node) -> Lowered:
    x, index, updates = state.tensor(node.inputs[0]), _index(state, node.inputs[1]), state.tensor(node.inputs[2])
    axis, join = _axis(node, 0, len(x.shape)), _join(node, x.dtype)
    if any(n != m for place, (n, m) in enumerate(zip(x.shape, index.shape, strict=True)) if place != axis):
        raise Unsupported("scattering into a part of the rows")
    rows = _axis_last(x, axis)
    y = state.copy(rows, state.plain(rows.shape, x.dtype), [node])
    index, updates = state.as_plain(_axis_last(index, axis)), state.as_plain(_axis_last(updates, axis))
    *outer, count = index.shape
    call = ScatterRows(math.prod(outer), y.shape[-1], count, BYTES[x.dtype], index.dtype == "int64", join)
    state.emit(call, [index.buffer, updates.buffer, y.buffer], [node])
    state.define(node.outputs[0], _axis_back(y, axis))
    return [node]


def arg_extreme(state: State, node: ir.Node) -> Lowered:
    x = state.tensor(node.inputs[0])
    axis = _axis(node, 0, len(x.shape))
    rows = state.as_plain(_axis_last(x, axis))
    y = state.plain(rows.shape[:-1], "int64")
    is_last = bool(node.attributes.get_int("select_last_index", 0))
    call = ArgExtreme(y.size, rows.shape[-1], node.op_type == "ArgMax", is_last, x.dtype)
    state.emit(call, [rows.buffer, y.buffer], [node])
    found = reshaped(y, shape_of(node.outputs[0]))
    assert found is not None  # an axis of length 1 more or less
    state.define(node.outputs[0], found)
    return [node]


def cum_sum(state: State, node: ir.Node) -> Lowered:
    x, axes = state.tensor(node.inputs[0]), ints(node, 1)
    if axes is None or x.dtype not in TYPES:
        raise Unsupported("a running sum along a computed axis")
    axis = axes[0] % len(x.shape)
    rows = state.as_plain(_axis_last(x, axis))
    y = state.plain(rows.shape, x.dtype)
    is_exclusive, is_reverse = (node.attributes.get_int(name, 0) != 0 for name in ("exclusive", "reverse"))
    call = CumSum(math.prod(rows.shape[:-1]), rows.shape[-1], is_exclusive, is_reverse, x.dtype)
    state.emit(call, [rows.buffer, y.buffer], [node])
    state.define(node.outputs[0], _axis_back(y, axis))
    return [node]


def top_k(state: State, node: ir.Node) -> Lowered:
    """The places first, the values from them."""
    x, count = state.tensor(node.inputs[0]), ints(node, 1)
    if count is None:
        raise Unsupported("as many of the largest as the model computes")
    axis = _axis(node, -1, len(x.shape))
    rows = state.as_plain(_axis_last(x, axis))
    *outer, length = rows.shape
    places = state.plain((*outer, count[0]), "int64")
    is_max = bool(node.attributes.get_int("largest", 1))
    call = TopK(math.prod(outer), length, count[0], is_max, x.dtype)
    state.emit(call, [rows.buffer, places.buffer], [node])
    back = _axis_back(places, axis)
    state.define(node.outputs[1], back)
    _define_gathered(state, node, x, back, axis, node.outputs[0])
    return [node]


def one_hot(state: State, node: ir.Node) -> Lowered:
    """Where the position equals the index; indices outside −depth … depth − 1 give the off value everywhere."""
    index, depth, values = state.tensor(node.inputs[0]), ints(node, 1), constant(node.inputs[2])
    shape = shape_of(node.outputs[0])
    if depth is None or values is None or index.dtype not in ("int64", "int32"):
        raise Unsupported("OneHot with a computed depth or values, or of other than integers")
    axis = _axis(node, -1, len(shape))
    y = state.plain(shape, values.dtype.name if values.dtype != np.bool_ else "uint8")
    wide = index.view((*index.shape[:axis], 1, *index.shape[axis:]), (*index.strides[:axis], 0, *index.strides[axis:]))
    positions = state.weights(np.arange(depth[0], dtype=index.dtype))
    places = positions.view(
        [n if a == axis else 1 for a, n in enumerate(shape)], [int(a == axis) for a in range(len(shape))]
    )
    own, place = operand(0, index.dtype), operand(1, index.dtype)
    is_hot = binary(
        "or", binary("equal", own, place),
        binary("equal", binary("add", own, const(depth[0], index.dtype)), place),
    )  # fmt: skip
    off, on = (const(value.item(), y.dtype) for value in values.reshape(-1))
    state.pointwise(where(is_hot, on, off), [expanded(wide, shape), expanded(places, shape)], y, [node])
    state.define(node.outputs[0], y)
    return [node]


def trilu(state: State, node: ir.Node) -> Lowered:
    """What lies above or below a diagonal, zeros elsewhere."""
    x, shift = state.tensor(node.inputs[0]), [0] if len(node.inputs) < 2 else ints(node, 1)
    if shift is None:
        raise Unsupported("a triangle whose diagonal is computed")
    keeps = np.triu if node.attributes.get_int("upper", 1) else np.tril
    mask = state.weights(keeps(np.ones(x.shape[-2:], np.uint8), shift[0]))
    value = where(operand(1, "uint8"), operand(0, x.dtype), cast(const(0, x.dtype), x.dtype))
    y = state.result(node.outputs[0], like=x)
    state.pointwise(value, [x, expanded(mask, x.shape)], y, [node])
    state.define(node.outputs[0], y)
    return [node]
