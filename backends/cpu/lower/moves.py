"""Operators that move elements: views where strides can say it, else copies. The rules are as those of `light`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from prunec.backends.cpu.lower.program import BYTES
from prunec.backends.cpu.lower.routines import Gather
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


def space_to_depth(state: State, node: ir.Node) -> Lowered:
    x = state.tensor(node.inputs[0])
    n, c, h, w = x.shape
    size = node.attributes.get_int("blocksize", 1) or 1
    blocks = reshaped(x, (n, c, h // size, size, w // size, size))
    assert blocks is not None  # axes are split, nothing is joined
    view = transposed(blocks, (0, 3, 5, 1, 2, 4))
    y = state.copy(view, state.plain(view.shape, x.dtype), [node])
    result = reshaped(y, shape_of(node.outputs[0]))
    assert result is not None
    state.define(node.outputs[0], result)
    return [node]


def tile(state: State, node: ir.Node) -> Lowered:
    """Every axis behind one of its own that only repeats."""
    x, repeats = state.tensor(node.inputs[0]), ints(node, 1)
    if repeats is None:
        raise Unsupported("a number of repetitions that is computed")
    shape = [m for pair in zip(repeats, x.shape, strict=True) for m in pair]
    strides = [m for stride in x.strides for m in (0, stride)]
    y = state.copy(x.view(shape, strides), state.plain(shape, x.dtype), [node])
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
