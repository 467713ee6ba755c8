"""`--polish`: swaps of levels on the real model after the knapsack, accepted where the refitted model gets better.

The knapsack adds up losses of single layers. Here whole models are asked: offspring by their outputs' error before
anything is refitted, the best of each generation by that of the refitted or solved model, on held-out data (`evolve`).
"""

from __future__ import annotations

from prunec.api.choices import Judge
from prunec.api.opening import Opened
from prunec.api.progress import Progress
from prunec.api.timed import Point, Rungs, TimedPlanner
from prunec.frontend.calibration import Calibration
from prunec.plan.budget import Budget
from prunec.plan.evolve import OFFSPRING, Evolved, evolve
from prunec.plan.plan import Plan, PolishPlan
from prunec.statistics.output_errors import OutputErrors, sample_count

DIGITS = 6


class Polisher:
    """Asks about choices of `timed`; `generations` refitted models are judged beside the first one."""

    def __init__(
        self,
        timed: TimedPlanner,
        judge: Judge,
        opened: Opened,
        calibration: Calibration,
        generations: int,
        seed: int,
        progress: Progress,
    ) -> None:
        self._timed, self._judge, self._generations, self._seed = timed, judge, generations, seed
        self._progress = progress
        samples = sample_count(opened.canonical, calibration, generations * OFFSPRING)
        self._errors = OutputErrors(opened.canonical, calibration, samples)

    def polished(self, made: Plan, point: Point, budget: Budget) -> Plan:
        """`made` at `point`, or a plan that loses less and is measured to meet the budget as well."""
        limit = budget.time_limit(self._timed.dense_ms)
        aim = limit * self._timed.predict(point.rungs) / point.share.median
        found = self.evolved(point.rungs, aim, budget)
        if found.rungs != point.rungs:
            better = self._timed.measure(found.rungs)
            if better.share.median <= limit:
                return self._timed.plan(better, budget).model_copy(update={"polish": _record(found)})
        return made.model_copy(update={"polish": _record(found, point.rungs)})

    def evolved(self, rungs: Rungs, aim: float, budget: Budget) -> Evolved:
        """What comes of `rungs` within a predicted share `aim` of the dense time."""

        def true(choice: Rungs) -> float:
            return self._errors.of(self._judge.model(self._timed.describe(choice, budget)))

        return evolve(
            rungs, self._timed.bottom, self._timed.predict, max(aim, self._timed.predict(rungs)),
            lambda choice: self._errors.of(self._timed.one_shot(choice)), true,
            generations=self._generations, seed=self._seed,
            progress=lambda done, of: self._progress("polishing", done, of),
        )  # fmt: skip


def _record(found: Evolved, stayed: Rungs | None = None) -> PolishPlan:
    """`stayed`: what was kept after all, the better choice being too slow."""
    after = found.error if stayed is None or stayed == found.rungs else found.before
    return PolishPlan(judged=found.judged, before=round(found.before, DIGITS), after=round(after, DIGITS))
