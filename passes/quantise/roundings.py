"""How weights become integers, by name, and what each name tries beside the nearest values.

    nearest    nothing: every weight by itself
    adaround   up or down as is learnt, on what the quantised layers before give
    sweep      roundings paid back by the columns that follow
    joint      the sweep, and zeros and integers found together where a layer has a pattern
    best       all of it

Each layer takes what errs least on held-out data. Zeros that are found anew can be the better ones of every layer and
not of the model, so where some are, the weights are rounded once more by the sweep, with the zeros that there are
(`walks`), and the model that errs less is taken.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, get_args

Rounding = Literal["nearest", "adaround", "sweep", "joint", "best"]
Method = Literal["adaround", "sweep", "joint"]
ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)
DEFAULT: Rounding = "joint"
TRIED: Mapping[Rounding, frozenset[Method]] = {
    "nearest": frozenset(),
    "adaround": frozenset({"adaround"}),
    "sweep": frozenset({"sweep"}),
    "joint": frozenset({"sweep", "joint"}),
    "best": frozenset({"adaround", "sweep", "joint"}),
}


def walks(rounding: Rounding, patterns: Collection[str]) -> tuple[Rounding, ...]:
    """What is tried through all layers, one way after the other; `patterns`: layers whose zeros may be found anew."""
    return (rounding, "sweep") if patterns and "joint" in TRIED[rounding] else (rounding,)
