"""How weights become integers, by name, and what each name tries beside the nearest values.

    nearest    nothing: every weight by itself
    adaround   up or down as is learnt, on what the quantised layers before give
    sweep      roundings paid back by the columns that follow
    joint      the sweep, and zeros and integers found together where a layer has a pattern
    best       all of it

Each layer takes what errs least on held-out data.
"""

from __future__ import annotations

from collections.abc import Mapping
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
