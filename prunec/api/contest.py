"""Ways to spread what goes beside each other: what each makes of the same time, and the one that errs least.

Losses rank layers by what each loses alone; what cuts or zeros in several do together none of them sees. So the
planner's own choice is compared with those of its other ways (`TimedPlanner.other_ways`) at the same time, every model
solved as a compile would and judged by its outputs on held-out data. The time is the one that all models which were
timed predict: a single measurement favours who was lucky. Another way is only taken where it is better by more than
`CLEARLY`, and measured to meet the budget.
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
from prunec.diagnostics import PrunecError
from prunec.frontend.calibration import Calibration
from prunec.plan.budget import Budget
from prunec.plan.plan import EntrantPlan, Plan
from prunec.statistics.output_errors import OutputErrors, sample_count

CLEARLY = 0.97
"""The share of the first one's error that another one has to stay below: samples are few."""
SAMPLES = 128
MODELS = 4
"""What is judged, for the number of samples: few are spent on large models."""
DIGITS = 4


@dataclass(frozen=True)
class Entrant:
    """A way that met the budget, and the error of its model's outputs."""

    planner: TimedPlanner
    plan: Plan
    point: Point
    error: float


class Contest:
    """Judges what comes of choices as `judge` makes them, by their outputs on held-out samples of `calibration`."""

    def __init__(
        self,
        judge: Judge,
        opened: Opened,
        calibration: Calibration,
        progress: Progress,
        *,
        threads: int = 1,
    ) -> None:
        self._judge, self._opened, self._calibration, self._threads = judge, opened, calibration, threads
        self._progress = progress
        self._known: dict[tuple[object, ...], float] = {}

    def best(self, timed: TimedPlanner, made: Plan, point: Point, budget: Budget) -> Entrant:
        """`made` by `timed`, or what another way makes of the same budget, its plan with all that took part.

        Where nothing goes there is nothing to compare.
        """
        first = Entrant(timed, made, point, 0.0)
        if not any(point.rungs):
            return first
        of, share = len(timed.other_ways) + 1, timed.predict(point.rungs)
        what = f"comparing {of} ways to spread what goes"
        self._progress(what, 0, of)
        first = replace(first, error=self._error(made))
        plans, ahead = [_told(made, share, first.error)], list[tuple[float, TimedPlanner]]()
        for number, way in enumerate(timed.other_ways, 1):
            self._progress(what, number, of)
            other = timed.spread_by(way)
            rungs = other.choose(share) or other.bottom
            own = other.describe(rungs, budget)
            error = self._error(own)
            plans.append(_told(own, other.predict(rungs), error))
            ahead += [(error, other)] if error < CLEARLY * first.error else []
        self._progress(what, of, of)
        best = self._met([other for _, other in sorted(ahead, key=lambda one: one[0])], budget, first)
        return replace(best, plan=best.plan.model_copy(update={"contest": tuple(plans)}))

    def _met(self, ahead: Sequence[TimedPlanner], budget: Budget, first: Entrant) -> Entrant:
        """The first of those that is measured to meet the budget and still errs less; `first` where none does."""
        for other in ahead:
            with contextlib.suppress(PrunecError):
                made, point = other.meet(budget)
                error = self._error(made)
                if error < first.error:
                    return Entrant(other, made, point, error)
        return first

    def _error(self, made: Plan) -> float:
        levels = (layer.model_copy(update={"why": ""}) for layer in made.layers)
        goes = (*levels, *((group.id, group.cut) for group in made.groups))
        if goes not in self._known:
            error = self._errors.of(self._judge.model(made))
            self._known[goes] = error if math.isfinite(error) else math.inf
        return self._known[goes]

    @cached_property
    def _errors(self) -> OutputErrors:
        samples = sample_count(self._opened.canonical, self._calibration, MODELS, most=SAMPLES)
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
    if timed.other_ways:
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
    known = float(f"{error:.4g}") if math.isfinite(error) else None
    return EntrantPlan(way=made.way, share=round(share, DIGITS), error=known)
