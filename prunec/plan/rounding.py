"""Widths that a target runs well.

ONNX Runtime's blocked CPU kernels want channel counts that are multiples of 4, and of 8 for full vectors: measured, a
network cut to odd widths ran 1.3 to 3.6 times slower than dense, the same network at multiples of 4 at 0.3 to 0.55 of
the time. So a group keeps a multiple of the step, or all of it; the same for every part of a group that other layers
see apart (a split, a slice), because concatenated widths are then multiples too.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from prunec.diagnostics import PrunecError
from prunec.graph import Group
from prunec.graph.rules.base import attribute
from prunec.plan.cells import Cell

STEPS: dict[str, int] = {"x86-avx512": 16, "wasm": 4}
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


def unit(cell: Cell, group: Group, step: int, grouped: dict[str, int]) -> int:
    """Kept channels of `cell` must be a multiple of this, so that every producer axis keeps a multiple of the step.

    A channel that covers p positions of an axis (grouped convolution, attention head) counts p times. `grouped` maps
    the names of grouped convolutions to their number of groups.
    """
    found = 1
    for member in group.producers():
        own = np.bincount(member.index[member.index >= 0], minlength=group.size)[cell.local]
        if not own.any():
            continue
        positions = math.gcd(*own.tolist())
        width = int(own.sum())
        wanted = step if width >= SMALL_WIDTH or step % 2 else step // 2
        needed = wanted // math.gcd(wanted, positions)
        groups = grouped.get(member.node, 1)
        if groups > 1 and cell.size >= BLOCKED_WIDTH and cell.size % step == 0:
            needed = step
        found = math.lcm(found, needed)
    return found


def levels(size: int, unit_: int, least: int) -> list[int]:
    """Numbers of channels that may be kept, from all of them down to the smallest that is at least `least`."""
    multiples = range((size - 1) // unit_ * unit_, max(least, 1) - 1, -unit_)
    return [size, *(k for k in multiples if k > 0)]


def grouped_convolutions(model: ir.Model) -> dict[str, int]:
    """Node name → groups, of the convolutions that have more than one."""
    nodes = [node for node in model.graph if node.op_type in ("Conv", "ConvTranspose")]
    groups = {node.name or "": int(attribute(node, "group", 1)) for node in nodes}
    return {name: number for name, number in groups.items() if number > 1}
