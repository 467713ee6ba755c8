"""Ways to spread zeros beside each other: what each makes of the same time, and the one whose solved model errs least.

Allocations rank layers by what each loses alone; what zeros in several do together none of them sees. So the planner's
own choice is compared with those of `OTHERS` at the same time, every model solved as a compile would and judged by its
outputs on held-out data. The time is the one that all models which were timed predict: a single measurement favours who
was lucky. Another way is only taken where it is better by more than `CLEARLY`, and measured to meet the budget.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from prunec.api.choices import Judge
from prunec.api.opening import Opened
from prunec.api.options import PlanOptions
from prunec.api.progress import Progress
from prunec.api.timed import Point, TimedPlanner
from prunec.api.zero_timing import TimedZeros
from prunec.diagnostics import PrunecError
from prunec.frontend.calibration import Calibration
from prunec.plan.budget import Budget
from prunec.plan.levels import Allocation
from prunec.plan.plan import EntrantPlan, LayerPlan, Plan
from prunec.statistics.output_errors import OutputErrors, sample_count

OTHERS: tuple[Allocation, ...] = ("uniform", "erk", "lamp")
CLEARLY = 0.97
"""The share of the first one's error that another one has to stay below: samples are few."""
SAMPLES = 128
DIGITS = 4


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
        *,
        threads: int = 1,
        others: Sequence[Allocation] = OTHERS,
    ) -> None:
        self._judge, self._opened, self._calibration, self._threads = judge, opened, calibration, threads
        self._others, self._progress = others, progress
        self._known: dict[tuple[LayerPlan, ...], float] = {}

    def best(self, timed: TimedPlanner, made: Plan, point: Point, budget: Budget) -> Entrant:
        """`made` by `timed`, or what another way makes of the same budget, its plan with all that took part.

        Where no layer has zeros there is nothing to compare.
        """
        assert isinstance(timed, TimedZeros)
        first = Entrant(timed, made, point, 0.0)
        if not any(layer.level for layer in made.layers):
            return first
        of, share = len(self._others) + 1, timed.predict(point.rungs)
        self._progress(f"comparing {of} allocations", 0, of)
        first = replace(first, error=self._error(made))
        plans, ahead = [_told(made, share, first.error)], list[tuple[float, TimedZeros]]()
        for number, allocation in enumerate(self._others, 1):
            self._progress(f"comparing {of} allocations", number, of)
            other = timed.spread_by(allocation)
            rungs = other.choose(share) or other.bottom
            own = other.describe(rungs, budget)
            error = self._error(own)
            plans.append(_told(own, other.predict(rungs), error))
            ahead += [(error, other)] if error < CLEARLY * first.error else []
        self._progress(f"comparing {of} allocations", of, of)
        best = self._met([other for _, other in sorted(ahead, key=lambda one: one[0])], budget, first)
        return replace(best, plan=best.plan.model_copy(update={"contest": tuple(plans)}))

    def _met(self, ahead: Sequence[TimedZeros], budget: Budget, first: Entrant) -> Entrant:
        """The first of those that is measured to meet the budget and still errs less; `first` where none does."""
        for other in ahead:
            with contextlib.suppress(PrunecError):
                made, point = other.meet(budget)
                error = self._error(made)
                if error < first.error:
                    return Entrant(other, made, point, error)
        return first

    def _error(self, made: Plan) -> float:
        levels = tuple(layer.model_copy(update={"why": ""}) for layer in made.layers)
        if levels not in self._known:
            self._known[levels] = self._errors.of(self._judge.model(made))
        return self._known[levels]

    @cached_property
    def _errors(self) -> OutputErrors:
        samples = sample_count(self._opened.canonical, self._calibration, len(self._others) + 1, most=SAMPLES)
        return OutputErrors(self._opened.canonical, self._calibration, samples, threads=self._threads)


def contest_of(
    timed: TimedPlanner,
    judge: Judge,
    opened: Opened,
    calibration: Calibration,
    options: PlanOptions,
    progress: Progress,
) -> Contest | None:
    """None where there is one way only, or one was asked for."""
    if isinstance(timed, TimedZeros) and timed.may_be_spread_otherwise:
        return Contest(judge, opened, calibration, progress, threads=options.threads)
    return None


def met(timed: TimedPlanner, contest: Contest | None, budget: Budget) -> tuple[TimedPlanner, Plan, Point]:
    """The plan for a time, by the best of several ways where there is a `contest`, and the planner that it is from."""
    made, point = timed.meet(budget)
    if contest is None:
        return timed, made, point
    best = contest.best(timed, made, point, budget)
    return best.planner, best.plan, best.point


def _told(made: Plan, share: float, error: float) -> EntrantPlan:
    assert made.allocation is not None
    known = float(f"{error:.4g}") if math.isfinite(error) else None
    return EntrantPlan(allocation=made.allocation, share=round(share, DIGITS), error=known)
