"""`--polish`: swaps of levels on the real model after the knapsack, accepted where the refitted model gets better.

The knapsack adds up losses of single layers. Here whole models are asked: offspring by their outputs' error before
anything is refitted, the best of each generation by that of the refitted or solved model, on held-out data (`evolve`).

Where layers were solved beforehand (`--losses solved`), swaps are tried on models put together from those, as Týr-the-
Pruner (arXiv 2503.09657) searches its supernet: nothing is solved for a swap. What comes of it is then solved as a
compile would, once, beside what the knapsack chose, and only stays where that is better.
"""

from __future__ import annotations

from prunec.api.choices import Judge
from prunec.api.opening import Opened
from prunec.api.progress import Progress
from prunec.api.timed import Point, Rungs, TimedPlanner
from prunec.frontend.calibration import Calibration
from prunec.plan.budget import Budget
from prunec.plan.evolve import OFFSPRING, Error, Evolved, evolve
from prunec.plan.plan import Plan, PolishPlan
from prunec.statistics.output_errors import OutputErrors, sample_count

DIGITS = 6


class Polisher:
    """Asks about choices of `timed`; `generations` refitted models are judged beside the first one, or two in all."""

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
        self._progress, self._assembled = progress, 0
        samples = sample_count(opened.canonical, calibration, generations * OFFSPRING)
        self._errors = OutputErrors(opened.canonical, calibration, samples)

    def polished(self, made: Plan, point: Point, budget: Budget) -> Plan:
        """`made` at `point`, or a plan that loses less and is measured to meet the budget as well."""
        limit = budget.time_limit(self._timed.dense_ms)
        aim = limit * self._timed.predict(point.rungs) / point.share.median
        search = self.searched if self._timed.is_presolved else self.evolved
        found = search(point.rungs, aim, budget)
        if found.rungs != point.rungs:
            better = self._timed.measure(found.rungs)
            if better.share.median <= limit:
                kept = {"polish": self._record(found), "contest": made.contest}
                return self._timed.plan(better, budget).model_copy(update=kept)
        return made.model_copy(update={"polish": self._record(found, point.rungs)})

    def evolved(self, rungs: Rungs, aim: float, budget: Budget) -> Evolved:
        """What comes of `rungs` within a predicted share `aim` of the dense time."""
        return self._evolved(rungs, aim, lambda choice: self._refitted(choice, budget))

    def searched(self, rungs: Rungs, aim: float, budget: Budget) -> Evolved:
        """The same with models of pre-solved layers; two are refitted in the end, and the better one is the answer."""
        known: dict[Rungs, float] = {}

        def assembled(choice: Rungs) -> float:
            if choice not in known:
                known[choice] = self._one_shot(choice)
            return known[choice]

        found = self._evolved(rungs, aim, assembled, assembled)
        self._assembled = len(known)
        before = self._refitted(rungs, budget)
        if found.rungs == rungs:
            return Evolved(rungs, before, before, 1)
        after = self._refitted(found.rungs, budget)
        return Evolved(found.rungs, before, after, 2) if after < before else Evolved(rungs, before, before, 2)

    def _evolved(self, rungs: Rungs, aim: float, true: Error, cheap: Error | None = None) -> Evolved:
        return evolve(
            rungs, self._timed.bottom, self._timed.predict, max(aim, self._timed.predict(rungs)),
            cheap or self._one_shot, true, generations=self._generations, seed=self._seed,
            progress=lambda done, of: self._progress("polishing", done, of),
        )  # fmt: skip

    def _one_shot(self, choice: Rungs) -> float:
        return self._errors.of(self._timed.one_shot(choice))

    def _refitted(self, choice: Rungs, budget: Budget) -> float:
        return self._errors.of(self._judge.model(self._timed.describe(choice, budget)))

    def _record(self, found: Evolved, stayed: Rungs | None = None) -> PolishPlan:
        """`stayed`: what was kept after all, the better choice being too slow."""
        after = found.error if stayed is None or stayed == found.rungs else found.before
        before, after = round(found.before, DIGITS), round(after, DIGITS)
        return PolishPlan(judged=found.judged, before=before, after=after, assembled=self._assembled)
