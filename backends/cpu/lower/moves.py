"""Operators that move elements: views where strides can say it, else copies. The rules are as those of `light`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from prunec.backends.cpu.lower.program import BYTES, Fill, Gather
from prunec.backends.cpu.lower.state import State, Unsupported, shape_of
from prunec.backends.cpu.lower.views import expanded, reshaped, sliced, transposed
from prunec.graph.shapes import constant

Lowered = Sequence[ir.Node]


def reshape(state: State, node: ir.Node) -> Lowered:
    """Reshape, Flatten, Squeeze, Unsqueeze: a view, or a view of a copy in order."""
    x, shape = state.tensor(node.inputs[0]), shape_of(node.outputs[0])
    found = reshaped(x, shape)
    if found is None:
        found = reshaped(state.as_plain(x), shape)
    assert found is not None
    state.define(node.outputs[0], found)
    return [node]


def same(state: State, node: ir.Node) -> Lowered:
    state.define(node.outputs[0], state.tensor(node.inputs[0]))
    return [node]


def transpose(state: State, node: ir.Node) -> Lowered:
    x = state.tensor(node.inputs[0])
    order = list(node.attributes.get_ints("perm") or reversed(range(len(x.shape))))
    state.define(node.outputs[0], transposed(x, order))
    return [node]


def slice_(state: State, node: ir.Node) -> Lowered:
    x = state.tensor(node.inputs[0])
    starts, ends = ints(node, 1), ints(node, 2)
    if starts is None or ends is None:
        raise Unsupported("a slice whose bounds are computed")
    axes = ints(node, 3) or list(range(len(starts)))
    steps = ints(node, 4) or [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        length = x.shape[axis]
        stop = end if step > 0 or end >= -length else None  # backwards beyond the first one is no negative position
        positions = range(*slice(start, stop, step).indices(length))
        x = sliced(x, axis % len(x.shape), positions.start, len(positions), step)
    state.define(node.outputs[0], x)
    return [node]


def split(state: State, node: ir.Node) -> Lowered:
    x = state.tensor(node.inputs[0])
    axis = (node.attributes.get_int("axis", 0) or 0) % len(x.shape)
    start = 0
    for value in node.outputs:
        count = shape_of(value)[axis]
        state.define(value, sliced(x, axis, start, count))
        start += count
    return [node]


def expand(state: State, node: ir.Node) -> Lowered:
    state.define(node.outputs[0], expanded(state.tensor(node.inputs[0]), shape_of(node.outputs[0])))
    return [node]


def concat(state: State, node: ir.Node) -> Lowered:
    inputs = [state.tensor(value) for value in node.inputs]
    axis = (node.attributes.get_int("axis", 0) or 0) % len(inputs[0].shape)
    like = inputs[0] if len(inputs[0].shape) == 4 else state.plain((1,), "float32")
    y = state.result(node.outputs[0], like=like)
    start = 0
    for x in inputs:
        if x.size:
            state.copy(x, sliced(y, axis, start, x.shape[axis]), [node])
        start += x.shape[axis]
    state.define(node.outputs[0], y)
    return [node]


def gather(state: State, node: ir.Node) -> Lowered:
    table, index = state.tensor(node.inputs[0]), state.tensor(node.inputs[1])
    axis = (node.attributes.get_int("axis", 0) or 0) % len(table.shape)
    known = constant(node.inputs[1])
    if known is not None and known.size == 1:
        position = int(known.reshape(-1)[0]) % table.shape[axis]
        found = reshaped(sliced(table, axis, position, 1), shape_of(node.outputs[0]))
        if found is not None:
            state.define(node.outputs[0], found)
            return [node]
    if index.dtype not in ("int64", "int32"):
        raise Unsupported(f"indices of type {index.dtype}")
    table, index = state.as_plain(table), state.as_plain(index)
    y = state.plain(shape_of(node.outputs[0]), table.dtype)
    call = Gather(
        math.prod(table.shape[:axis]), table.shape[axis], index.size,
        math.prod(table.shape[axis + 1 :]) * BYTES[table.dtype], index.dtype == "int64",
    )  # fmt: skip
    state.emit(call, [table.buffer, index.buffer, y.buffer], [node])
    state.define(node.outputs[0], y)
    return [node]


def pad(state: State, node: ir.Node) -> Lowered:
    """Zeros around a tensor; what a convolution pads itself never comes here."""
    x = state.tensor(node.inputs[0])
    value = constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else np.zeros(1)
    amounts = ints(node, 1)
    if node.attributes.get_string("mode", "constant") != "constant" or value is None or np.any(value != 0):
        raise Unsupported("padding with something else than zeros")
    axes = ints(node, 3) or list(range(len(x.shape)))
    if amounts is None or min(amounts, default=0) < 0:
        raise Unsupported("padding by a computed or negative amount")
    like = x if len(x.shape) == 4 else state.plain((1,), "float32")
    y = state.result(node.outputs[0], like=like)
    state.emit(Fill(), [y.buffer], [node])
    inside = y
    for place, axis in enumerate(axes):
        axis %= len(x.shape)
        inside = sliced(inside, axis, amounts[place], x.shape[axis])
    state.copy(x, inside, [node])
    state.define(node.outputs[0], y)
    return [node]


def resize(state: State, node: ir.Node) -> Lowered:
    """Nearest neighbours at whole multiples: every pixel several times."""
    x, shape = state.tensor(node.inputs[0]), shape_of(node.outputs[0])
    if len(shape) != 4 or node.attributes.get_string("mode", "nearest") != "nearest":
        raise Unsupported("a resize that interpolates")
    factors = [after // before for after, before in zip(shape, x.shape, strict=True)]
    is_whole = all(f * n == m for f, n, m in zip(factors, x.shape, shape, strict=True)) and factors[:2] == [1, 1]
    how = (node.attributes.get_string("coordinate_transformation_mode", "half_pixel"),
           node.attributes.get_string("nearest_mode", "round_prefer_floor"))  # fmt: skip
    same_pixels = how in {("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"), ("half_pixel", "floor")}
    if not is_whole or not (same_pixels or (how[0] == "half_pixel" and max(factors) <= 2)):
        raise Unsupported("a resize by other factors than whole ones")
    y = state.result(node.outputs[0], like=x)
    n, c, h, w = x.shape
    _, fy, fx = 1, factors[2], factors[3]
    source = x.view((n, c, h, 1, w, 1), (x.strides[0], x.strides[1], x.strides[2], 0, x.strides[3], 0))
    down, right = y.strides[2], y.strides[3]
    target = y.view((n, c, h, fy, w, fx), (y.strides[0], y.strides[1], down * fy, down, right * fx, right))
    state.copy(source, target, [node])
    state.define(node.outputs[0], y)
    return [node]


def depth_to_space(state: State, node: ir.Node) -> Lowered:
    x = state.tensor(node.inputs[0])
    n, c, h, w = x.shape
    size = node.attributes.get_int("blocksize", 1) or 1
    if node.attributes.get_string("mode", "DCR") == "DCR":
        shape, order = (n, size, size, c // size**2, h, w), (0, 3, 4, 1, 5, 2)
    else:
        shape, order = (n, c // size**2, size, size, h, w), (0, 1, 4, 2, 5, 3)
    split_up = reshaped(x, shape)
    assert split_up is not None  # the channels are split, nothing is joined
    view = transposed(split_up, order)
    y = state.plain(view.shape, x.dtype)
    state.copy(view, y, [node])
    result = reshaped(y, shape_of(node.outputs[0]))
    assert result is not None
    state.define(node.outputs[0], result)
    return [node]


def ints(node: ir.Node, index: int, attribute: str | None = None) -> list[int] | None:
    """A constant input as numbers, or the attribute that older operator sets have in its place."""
    if attribute is not None and node.attributes.get(attribute) is not None:
        return [int(n) for n in node.attributes.get_ints(attribute) or ()]
    value = node.inputs[index] if len(node.inputs) > index else None
    data = None if value is None else constant(value)
    return None if data is None else [int(n) for n in data.reshape(-1)]
