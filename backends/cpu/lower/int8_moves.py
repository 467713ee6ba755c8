"""Operators that move bytes, take the largest, or the mean, in the layout of int8 kernels.

What they cannot do is left to the rules for float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from prunec.backends.cpu.expression import operand, quantised
from prunec.backends.cpu.kernels.base import Access
from prunec.backends.cpu.kernels.quad_pool import QuadMaxPool, QuadMean
from prunec.backends.cpu.lower.geometry import window_of
from prunec.backends.cpu.lower.held import Held, layout, new_held
from prunec.backends.cpu.lower.moves import ints
from prunec.backends.cpu.lower.program import Tensor
from prunec.backends.cpu.lower.quantisers import Rule, can_hold, grid_of, wanted_border
from prunec.backends.cpu.lower.resize import repeats
from prunec.backends.cpu.lower.state import State, shape_of
from prunec.backends.cpu.lower.views import sliced
from prunec.backends.cpu.quads import QUAD

OnBytes = Callable[[State, ir.Node, Held], Sequence[ir.Node] | None]


def on_bytes(bytes_rule: OnBytes, rule: Rule) -> Rule:
    """`bytes_rule` where the first input is there in 8 bits and it can do it, else `rule`."""

    def own(state: State, node: ir.Node) -> Sequence[ir.Node]:
        source = node.inputs[0]
        held = None if source is None else state.held.get(source.name or "")
        found = None if held is None else bytes_rule(state, node, held)
        return rule(state, node) if found is None else found

    return own


def max_pool(state: State, node: ir.Node, held: Held) -> Sequence[ir.Node] | None:
    """Of bytes: their order is that of what they stand for."""
    if held.axis != 1 or len(held.shape) not in (3, 4) or (len(node.outputs) > 1 and node.outputs[1].uses()):
        return None
    window, x = window_of(node), held.quads
    y = new_held(shape_of(node.outputs[0]), 1, held.grid, wanted_border(node.outputs[0]))
    own = y.quads
    kernel = QuadMaxPool(
        grid=(own.batch * own.quads, own.height, own.width), size=(x.height, x.width), kernel=window.kernel,
        strides=window.strides, pads=window.pads[:2], dilations=window.dilations,
        x=Access(x.size, x.first, x.strides[1:3], "uint8"), y=Access(own.size, own.first, own.strides[1:3], "uint8"),
    )  # fmt: skip
    state.emit(kernel, [held.buffer, y.buffer], [node])
    state.finish_bytes(y)
    state.hold(node.outputs[0], y)
    return [node]


def mean(state: State, node: ir.Node, held: Held) -> Sequence[ir.Node] | None:
    """GlobalAveragePool, and ReduceMean over all pixels of an image."""
    rank = len(held.shape)
    if node.op_type == "ReduceMean":
        axes = ints(node, 1, "axes")
        if axes is None or sorted(axis % rank for axis in axes) != list(range(2, rank)):
            return None
    if held.axis != 1 or rank not in (3, 4):
        return None
    x, shape = held.quads, shape_of(node.outputs[0])
    kernel = QuadMean(
        (x.batch, x.quads, x.height, x.width), x.channels, Access(x.size, x.first, x.strides[:3], "uint8")
    )
    y = state.plain(shape, "float32")
    steps = np.array([held.zero, held.scale / (x.height * x.width)], np.float32)
    state.emit(kernel, [held.buffer, state.weights(steps).buffer, y.buffer], [node])
    state.define(node.outputs[0], y)
    return [node]


def reshape(state: State, node: ir.Node, held: Held) -> Sequence[ir.Node] | None:
    """Rows that stay rows of the same channels, and images of one pixel that become rows."""
    shape = shape_of(node.outputs[0])
    is_row = held.axis == len(held.shape) - 1
    stays = is_row and len(shape) > 1 and shape[-1] == held.shape[-1]
    is_pixel = not is_row and math.prod(held.shape[2:]) == 1 and shape == held.shape[:2]
    if not (stays or is_pixel):
        return None
    axis = len(shape) - 1
    if layout(shape, axis) == held.quads:
        state.hold(node.outputs[0], replace(held, shape=shape, axis=axis))
        return [node]
    y, x = new_held(shape, axis, held.grid), held.tensor()
    images = x.view((1, x.shape[1], 1, x.shape[0], QUAD), (0, x.strides[1], 0, x.strides[0], 1))
    state.copy(images, y.tensor(), [node])
    state.hold(node.outputs[0], y)
    return [node]


def same(state: State, node: ir.Node, held: Held) -> Sequence[ir.Node] | None:
    state.hold(node.outputs[0], held)
    return [node]


def resize(state: State, node: ir.Node, held: Held) -> Sequence[ir.Node] | None:
    """Whole multiples of nearest neighbours."""
    shape = shape_of(node.outputs[0])
    if held.axis != 1 or len(shape) != 4 or not repeats(node, held.shape, shape):
        return None
    y = new_held(shape, 1, held.grid, wanted_border(node.outputs[0]))
    fy, fx = shape[2] // held.shape[2], shape[3] // held.shape[3]
    x, t = held.tensor(), y.tensor()
    n, q, h, w, _ = x.shape
    source = x.view((n, q, h, 1, w, 1, QUAD), (*x.strides[:3], 0, x.strides[3], 0, 1))
    down, right = t.strides[2:4]
    target = t.view((n, q, h, fy, w, fx, QUAD), (*t.strides[:2], down * fy, down, right * fx, right, 1))
    state.copy(source, target, [node])
    state.finish_bytes(y)
    state.hold(node.outputs[0], y)
    return [node]


def concat(rule: Rule) -> Rule:
    """Along whole quads, onto the grid of the quantiser behind it; `rule` where that is not so."""

    def own(state: State, node: ir.Node) -> Sequence[ir.Node]:
        found = _concat(state, node)
        return rule(state, node) if found is None else found

    return own


def _concat(state: State, node: ir.Node) -> Sequence[ir.Node] | None:
    uses = list(node.outputs[0].uses())
    held = [state.held.get(value.name or "") for value in node.inputs if value is not None]
    parts = [one for one in held if one is not None]
    if len(uses) != 1 or uses[0].node.op_type != "QuantizeLinear" or not can_hold(state, uses[0].node):
        return None
    if len(parts) < len(held) or node.outputs[0].is_graph_output():
        return None
    quantiser, axis = uses[0].node, parts[0].axis
    along = (node.attributes.get_int("axis", 0) or 0) % len(parts[0].shape)
    if along != axis or any(one.axis != axis for one in parts) or any(one.shape[axis] % QUAD for one in parts[:-1]):
        return None
    y = new_held(shape_of(node.outputs[0]), axis, grid_of(quantiser), wanted_border(quantiser.outputs[0]))
    start = 0
    for one in parts:
        target: Tensor = sliced(y.tensor(), 1, start, one.quads.quads)
        value = operand(0, "uint8") if one.grid == y.grid else quantised(one.number(0), *y.grid)
        state.pointwise(value, [one.tensor()], target, [node])
        start += one.quads.quads
    state.finish_bytes(y)
    state.hold_bytes(quantiser.outputs[0], y)
    return [node, quantiser]
