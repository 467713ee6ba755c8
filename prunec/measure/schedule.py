"""How many blocks in how many processes, and how many runs in a block."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from prunec.diagnostics import GateError
from prunec.measure.ratio import MIN_BLOCKS

_UNTIMED_SHARE = 0.1
_MOST_RUNS = 10_000  # per block: a run below 1 us would otherwise fill the pipe with times


@dataclass(frozen=True)
class Schedule:
    """What is run, decided after the first warm-up. `blocks` is for each of the `processes`."""

    processes: int
    blocks: int
    runs: dict[str, int]
    untimed: dict[str, int]


def plan_blocks(
    run_ns: Mapping[str, float], *, blocks: int, processes: int, block_ms: float, budget_s: float | None = None
) -> Schedule:
    """Timed runs per block so that each contender's block lasts `block_ms`; at least `blocks` blocks in all.

    Fewer blocks only to fit `budget_s`; GateError PC519 if not even those fit that an interval needs.
    """
    runs = {name: min(_MOST_RUNS, max(1, math.ceil(block_ms * 1e6 / ns))) for name, ns in run_ns.items()}
    untimed = {name: math.ceil(_UNTIMED_SHARE * count) for name, count in runs.items()}
    round_s = sum((runs[name] + untimed[name]) * ns for name, ns in run_ns.items()) / 1e9
    wanted, needed = math.ceil(blocks / processes), math.ceil(MIN_BLOCKS / processes)
    fitting = wanted if budget_s is None else int(budget_s / (round_s * processes))
    if fitting < needed:
        raise GateError(
            "PC519",
            f"nothing was measured: {needed * processes} blocks take about {needed * processes * round_s:.1f} s, "
            f"but the budget is {budget_s:g} s",
            hint="raise the budget or shrink the batch",
        )
    return Schedule(processes, min(wanted, fitting), runs, untimed)
