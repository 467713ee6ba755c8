"""What each layer may become when zeros are chosen for a time: its options, the slowest first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from prunec.plan.plan import Precision


@dataclass(frozen=True)
class Option:
    """`level`: the share of the weights that goes; `ms` by itself, `loss` of the outputs, as far as they are known.

    `precision`: None where there is nothing to choose.
    """

    level: float
    ms: float
    loss: float
    precision: Precision | None = None


Ladder = tuple[Option, ...]


def at_levels(ladder: Ladder, levels: Sequence[float], losses: np.ndarray) -> Ladder:
    """The same layer at other `levels`, with these `losses`, float64 [levels]; times in between are interpolated."""
    ms = np.interp(levels, [option.level for option in ladder], [option.ms for option in ladder])
    found = zip(levels, ms, losses, strict=True)
    return tuple(Option(level, float(time), float(loss), ladder[0].precision) for level, time, loss in found)


def frontier(first: Option, options: Iterable[Option]) -> Ladder:
    """`first`, and then only what is faster than everything that loses less: times fall and losses rise."""
    found = [first]
    for option in sorted(options, key=lambda own: (own.loss, own.ms)):
        if option.ms < found[-1].ms and option.loss >= first.loss:
            found.append(option)
    return tuple(found)
