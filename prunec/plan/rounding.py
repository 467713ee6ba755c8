"""Widths that a target runs well.

ONNX Runtime's blocked CPU kernels want channel counts that are multiples of 4, and of 8 for full vectors: measured, a
network cut to odd widths ran 1.3 to 3.6 times slower than dense, the same network at multiples of 4 at 0.3 to 0.55 of
the time. So a group keeps a multiple of the step, or all of it; the same for every part of a group that other layers
see apart (a split, a slice), because concatenated widths are then multiples too. Where some part is too narrow for
that, all parts *lose* multiples instead: wherever they are joined, a width that was a multiple stays one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from prunec.diagnostics import PrunecError
from prunec.graph import Group
from prunec.graph.rules.base import attribute
from prunec.plan.cells import Cell

STEPS: dict[str, int] = {"x86-avx512": 16, "wasm": 4, "tensorrt-2:4": 16, "torch-tensorrt-2:4": 16}
"""Target → channel step, where it differs from 8."""
DEFAULT_STEP = 8
SMALL_WIDTH = 32
"""Narrower groups keep multiples of half the step, or rounding would leave them two choices."""
BLOCKED_WIDTH = 16
"""Grouped convolutions of at least this width per group run blocked when that width is a multiple of the step."""


def step_for(target: str, round_to: int | None) -> int:
    """Channel step of a target, or the user's own.

    Raises:
        PrunecError PC208: `round_to` is not positive.
    """
    if round_to is None:
        return STEPS.get(target, DEFAULT_STEP)
    if round_to < 1:
        raise PrunecError(
            "PC208", f"channels cannot be rounded to multiples of {round_to}", hint="1 turns rounding off"
        )
    return round_to


_CONVOLUTIONS = ("Conv", "ConvTranspose", "FusedConv", "QLinearConv", "ConvInteger")


class Blocked(NamedTuple):
    """Names of the nodes whose channel axes are blocks side by side: grouped convolutions, and gates."""

    grouped: frozenset[str]
    recurrent: frozenset[str]


def blocked_nodes(model: ir.Model) -> Blocked:
    convolutions = [node for node in model.graph if node.op_type in _CONVOLUTIONS]
    return Blocked(
        frozenset(node.name or "" for node in convolutions if int(attribute(node, "group", 1)) > 1),
        frozenset(node.name or "" for node in model.graph if node.op_type in ("LSTM", "GRU", "RNN")),
    )


def unit(cell: Cell, group: Group, step: int, blocked: Blocked) -> int:
    """Kept channels of `cell` must be a multiple of this, so that every producer axis keeps a multiple of the step.

    A channel that covers p positions of an axis (grouped convolution, attention head) counts p times; the gates of a
    recurrent layer are computed apart, so there it counts once. Whole experts are counted one by one.
    """
    found = 1
    if group.experts is not None:
        return found
    for member in group.members:
        wide = cell.size >= BLOCKED_WIDTH and cell.size % step == 0
        if wide and member.role != "carrier" and member.node in blocked.grouped:
            found = math.lcm(found, step)
        own = np.bincount(member.channels, minlength=group.size)[cell.local]
        if member.role != "producer" or not own.any():
            continue
        positions = 1 if member.node in blocked.recurrent else math.gcd(*own.tolist())
        wanted = step if own.sum() >= SMALL_WIDTH or step % 2 else step // 2
        found = math.lcm(found, wanted // math.gcd(wanted, positions))
    return found


def levels(size: int, unit_: int, least: int, *, is_loss: bool = False) -> list[int]:
    """Numbers of channels that may be kept, from all of them down to the smallest that is at least `least`.

    Multiples of `unit_` stay; with `is_loss` multiples of it go.
    """
    start = size - unit_ if is_loss else (size - 1) // unit_ * unit_
    return [size, *range(start, max(least, 1) - 1, -unit_)]
