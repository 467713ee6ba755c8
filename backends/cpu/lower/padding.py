"""Pad: a constant around a tensor, or its own elements mirrored, repeated or from the other end.

What a convolution pads itself never comes here. Negative amounts cut.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from prunec.backends.cpu.expression import const, operand
from prunec.backends.cpu.lower.moves import ints
from prunec.backends.cpu.lower.program import Tensor
from prunec.backends.cpu.lower.routines import Fill
from prunec.backends.cpu.lower.state import State, Unsupported
from prunec.backends.cpu.lower.views import expanded, sliced
from prunec.graph.shapes import constant

_MODES = ("constant", "reflect", "edge", "wrap")


class _Run(NamedTuple):
    """`length` positions of one axis from `start`, copied from `source`, then every `step`-th."""

    start: int
    length: int
    source: int
    step: int


def pad(state: State, node: ir.Node) -> Sequence[ir.Node]:
    x = state.tensor(node.inputs[0])
    mode = node.attributes.get_string("mode", "constant") or "constant"
    amounts, axes = ints(node, 1), ints(node, 3)
    if amounts is None:
        raise Unsupported("padding by a computed amount")
    if mode not in _MODES:
        raise Unsupported(f"padding of the kind {mode}")
    rank = len(x.shape)
    chosen = list(range(rank)) if axes is None else [axis % rank for axis in axes]
    before, after = [0] * rank, [0] * rank
    for place, axis in enumerate(chosen):
        before[axis], after[axis] = amounts[place], amounts[place + len(chosen)]
    for axis in range(rank):
        cut = max(0, -before[axis])
        left = x.shape[axis] - cut - max(0, -after[axis])
        if left < 1:
            raise Unsupported("padding that cuts everything away")
        x = sliced(x, axis, cut, left)
    before, after = [max(0, n) for n in before], [max(0, n) for n in after]
    runs = [_runs(mode, *sizes) for sizes in zip(x.shape, before, after, strict=True)]
    value = _value(state, node) if mode == "constant" and any([*before, *after]) else None
    like = x if rank == 4 else state.plain((1,), "float32")
    y = state.result(node.outputs[0], like=like)
    if value is not None:
        _surround(state, node, y, value)
    for region in itertools.product(*runs):
        source, target = x, y
        for axis, run in enumerate(region):
            source = sliced(source, axis, run.source, run.length, run.step)
            target = sliced(target, axis, run.start, run.length)
        state.copy(source, target, [node])
    state.define(node.outputs[0], y)
    return [node]


def _runs(mode: str, length: int, before: int, after: int) -> list[_Run]:
    """What one axis of the result is made of."""
    inside = _Run(before, length, 0, 1)
    if mode == "constant":
        return [inside]
    if max(before, after) > (length - 1 if mode == "reflect" else length) and mode != "edge":
        raise Unsupported(f"{mode} padding by more than the tensor has")
    first, last, step = _ends(mode, length, before)
    ends = [_Run(0, before, first, step), _Run(before + length, after, last, step)]
    return [run for run in (inside, *ends) if run.length]


def _ends(mode: str, length: int, before: int) -> tuple[int, int, int]:
    """Where the positions before and those behind are read from, and in which steps."""
    if mode == "reflect":
        return before, length - 2, -1
    return (0, length - 1, 0) if mode == "edge" else (length - before, 0, 1)


def _value(state: State, node: ir.Node) -> float | int | Tensor:
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None:
        return 0
    known = constant(value)
    if known is None:
        return state.tensor(value)
    found: float | int = known.reshape(-1)[0].item()
    return found


def _surround(state: State, node: ir.Node, y: Tensor, value: float | int | Tensor) -> None:
    """Write the value everywhere; a zero in the border of an image does no harm, another value would."""
    if isinstance(value, Tensor):
        view = value.view((1,) * len(y.shape), (0,) * len(y.shape))
        state.pointwise(operand(0, value.dtype), [expanded(view, y.shape)], y, [node])
    elif value == 0 and not np.signbit(value):
        state.emit(Fill(), [y.buffer], [node])
    else:
        state.pointwise(const(value, y.dtype), [], y, [node])
