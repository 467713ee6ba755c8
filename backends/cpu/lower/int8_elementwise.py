"""Chains of elementwise operators from bytes to bytes: numbers only in registers.

A chain starts at an operator that reads values in 8 bits, numbers, and arrays with one number per channel, and ends
with a quantiser. It is computed quad by quad in the layout of int8 kernels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from prunec.backends.cpu.expression import Expression, operand
from prunec.backends.cpu.lower.fuse import grow
from prunec.backends.cpu.lower.held import Held, new_held
from prunec.backends.cpu.lower.program import Tensor
from prunec.backends.cpu.lower.quantisers import Rule, can_hold, grid_of, wanted_border
from prunec.backends.cpu.lower.state import State, shape_of
from prunec.backends.cpu.lower.views import expanded
from prunec.backends.cpu.quads import QUAD
from prunec.graph.shapes import constant


def chain_in_bytes(rule: Rule) -> Rule:
    """`rule` computes in float32 what is no such chain."""

    def own(state: State, node: ir.Node) -> Sequence[ir.Node]:
        if not any(value is not None and value.name in state.held for value in node.inputs):
            return rule(state, node)
        return _chain(state, node) or rule(state, node)

    return own


def _chain(state: State, root: ir.Node) -> Sequence[ir.Node] | None:
    """The nodes that were computed, None where it is no chain from bytes to bytes."""
    cluster = grow(root.outputs[0], state.is_known, root, to_bytes=True)
    last = cluster.output.producer()
    if last is None or last.op_type != "QuantizeLinear" or not can_hold(state, last):
        return None
    like = next((state.held[v.name or ""] for v in cluster.operands if v.name in state.held), None)
    if like is None:
        return None
    shape = shape_of(cluster.output)
    y = new_held(shape, like.axis - len(like.shape) + len(shape), grid_of(last), wanted_border(cluster.output))
    inputs: list[Tensor] = []
    numbers: dict[int, Expression] = {}
    for index, value in enumerate(cluster.operands, 1):
        found = _operand(state, value, y, index - 1)
        if found is None:
            return None
        inputs.append(expanded(found[0], y.tensor().shape))
        numbers[index] = found[1]
    state.pointwise(cluster.value.substitute(numbers), inputs, y.tensor(), cluster.nodes)
    state.finish_bytes(y)
    state.hold_bytes(cluster.output, y)
    return cluster.nodes


def _operand(state: State, value: ir.Value, y: Held, index: int) -> tuple[Tensor, Expression] | None:
    """[n, quads, h, w, 4] of an operand, and the number that input `index` is then."""
    held = state.held.get(value.name or "")
    if held is not None:
        fits = held.axis - len(held.shape) == y.axis - len(y.shape) and len(held.shape) == len(y.shape)
        sizes = zip(held.tensor().shape, y.tensor().shape, strict=True)
        is_row = y.axis == len(y.shape) - 1
        if not fits or any(a != b and (a != 1 or is_row) for a, b in sizes):
            return None
        return held.tensor(), held.number(index)
    array = constant(value)
    if array is None or array.dtype != np.float32:
        return None
    shape = (1,) * (len(y.shape) - array.ndim) + array.shape
    if len(shape) != len(y.shape) or array.size != shape[y.axis]:
        return None
    quads = np.zeros((y.quads.quads * QUAD,), np.float32)
    quads[: array.size] = array.reshape(-1)
    return state.weights(quads.reshape(1, -1, 1, 1, QUAD)), operand(index)
