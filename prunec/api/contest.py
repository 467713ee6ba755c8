"""Ways to spread zeros beside each other: what each makes of the same time, and the one whose solved model errs least.

Allocations rank layers by what each loses alone; what zeros in several do together none of them sees. So the planner's
own choice is compared with those of `OTHERS` at the same measured time, every model solved as a compile would and
judged by its outputs on held-out data. The other way is only taken where it is better by more than `CLEARLY`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from prunec.api.choices import Judge
from prunec.api.opening import Opened
from prunec.api.progress import Progress
from prunec.api.timed import Point, TimedPlanner
from prunec.api.zero_timing import TimedZeros
from prunec.diagnostics import PrunecError
from prunec.frontend.calibration import Calibration
from prunec.plan.budget import Budget
from prunec.plan.levels import Allocation
from prunec.plan.plan import EntrantPlan, Plan
from prunec.statistics.output_errors import OutputErrors, sample_count

OTHERS: tuple[Allocation, ...] = ("uniform", "erk", "lamp")
CLEARLY = 0.97
"""The share of the first one's error that another one has to stay below: samples are few."""
SAMPLES = 128
DIGITS = 6


@dataclass(frozen=True)
class Entrant:
    """A way that met the budget, and the error of its model's outputs."""

    planner: TimedPlanner
    plan: Plan
    point: Point
    error: float


class Contest:
    """`others`: allocations that are tried beside the one that a planner has."""

    def __init__(
        self,
        judge: Judge,
        opened: Opened,
        calibration: Calibration,
        progress: Progress,
        others: Sequence[Allocation] = OTHERS,
    ) -> None:
        self._judge, self._others, self._progress = judge, others, progress
        samples = sample_count(opened.canonical, calibration, len(others) + 1, most=SAMPLES)
        self._errors = OutputErrors(opened.canonical, calibration, samples)

    def best(self, timed: TimedPlanner, made: Plan, point: Point, budget: Budget) -> Entrant:
        """`made` by `timed`, or what another way makes of the same budget, its plan with all that took part."""
        assert isinstance(timed, TimedZeros)
        told = f"comparing {len(self._others) + 1} allocations"
        self._progress(told, 0, len(self._others) + 1)
        first = self._entrant(timed, made, point)
        entrants, plans = [first], [_told(first)]
        for number, allocation in enumerate(self._others, 1):
            self._progress(told, number, len(self._others) + 1)
            try:
                other = timed.spread_by(allocation)
                entrants.append(self._entrant(other, *other.meet(budget)))
                plans.append(_told(entrants[-1]))
            except PrunecError as no:
                plans.append(EntrantPlan(allocation=allocation, missed=no.diagnostic.message))
        self._progress(told, len(self._others) + 1, len(self._others) + 1)
        ahead = min(entrants, key=lambda one: one.error)
        best = ahead if ahead.error < CLEARLY * first.error else first
        record = best.plan.model_copy(update={"contest": tuple(plans)})
        return Entrant(best.planner, record, best.point, best.error)

    def _entrant(self, timed: TimedPlanner, made: Plan, point: Point) -> Entrant:
        return Entrant(timed, made, point, self._errors.of(self._judge.model(made)))


def contest_of(
    timed: TimedPlanner, judge: Judge, opened: Opened, calibration: Calibration, progress: Progress
) -> Contest | None:
    """None where there is one way only, or one was asked for."""
    if isinstance(timed, TimedZeros) and timed.may_be_spread_otherwise:
        return Contest(judge, opened, calibration, progress)
    return None


def _told(entrant: Entrant) -> EntrantPlan:
    plan = entrant.plan
    assert plan.allocation is not None and plan.time is not None
    if not math.isfinite(entrant.error):
        return EntrantPlan(allocation=plan.allocation, share=plan.time.share, missed="its outputs are not finite")
    return EntrantPlan(allocation=plan.allocation, share=plan.time.share, error=round(entrant.error, DIGITS))
