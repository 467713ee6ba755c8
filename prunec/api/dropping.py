"""Plan for quality: the fastest model whose drop, with a margin for the number of samples, is within what is allowed.

Widths for a time are those of the planner for times (`api.timing`). The span of times between the narrowest and the
dense model is halved, on a logarithmic scale; each choice is cut, refitted and judged as a compile would do it. What
passed is measured afterwards, the fastest first, and taken if its whole interval lies below the dense model's time.

The margin is a 90 % confidence bound on the drop for other data of the same kind (`verify.bounds`). A handful of looks
at the same data make it a little less than that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from prunec.api.opening import Opened
from prunec.api.options import PlanOptions
from prunec.api.progress import Progress
from prunec.api.pruning import Judged, judge
from prunec.api.refitting import refit
from prunec.api.stages import stages_of
from prunec.api.timing import TimedPlanner
from prunec.diagnostics import Diagnostic, GateError
from prunec.frontend.calibration import Calibration
from prunec.passes.compensate import Options
from prunec.plan.budget import Budget
from prunec.plan.plan import DropPlan, Plan
from prunec.verify.bounds import finest_drop, samples_for
from prunec.verify.records import QualityRecord

TRIALS = 6
CLOSE = 1.04
"""Times nearer to each other than this are not told apart."""
DIGITS = 6


@dataclass(frozen=True)
class Trial:
    """A choice that was cut, refitted and judged; `predicted` is its share of the dense time."""

    rungs: tuple[int, ...]
    predicted: float
    quality: QualityRecord | None
    is_good: bool


class DropPlanner:
    """Judges the choices of `timed`. `own` is the user's metric, without which agreement on held-out data decides."""

    def __init__(
        self,
        opened: Opened,
        timed: TimedPlanner,
        calibration: Calibration,
        options: PlanOptions,
        own: Judged | None,
        progress: Progress,
    ) -> None:
        self._opened, self._timed, self._calibration, self._options = opened, timed, calibration, options
        self._own, self._progress = own, progress
        self.trials: list[Trial] = []

    def fastest(self, budget: Budget) -> tuple[Plan, tuple[Diagnostic, ...]]:
        """The plan, and what there is to say about the data.

        Raises:
            GateError PC530: nothing that keeps the quality is measured to be faster than the dense model.
        """
        narrow, wide = self._timed.floor.median, 1.0
        for number in range(TRIALS):
            if wide / narrow < CLOSE:
                break
            self._progress("judging a choice", number, TRIALS)
            middle = math.sqrt(narrow * wide)
            rungs = self._timed.choose(middle)
            trial = None if rungs is None else self._trial(rungs, budget)
            if trial is not None and trial.is_good:
                wide = min(trial.predicted, middle)
            else:
                narrow = middle
        good = (trial for trial in self.trials if trial.is_good)
        for trial in sorted(good, key=lambda one: one.predicted):
            self._progress("measuring the choice", 0, 0)
            point = self._timed.measure(trial.rungs)
            if point.share.ci95[1] < 1:
                return self._plan(self._timed.plan(point, budget), trial), self._warnings(budget, trial)
        raise self._nothing(budget)

    def _trial(self, rungs: tuple[int, ...], budget: Budget) -> Trial:
        known = next((trial for trial in self.trials if trial.rungs == rungs), None)
        if known is not None:
            return known
        quality = self._quality(self._timed.describe(rungs, budget))
        found = Trial(rungs, self._timed.predict(rungs), quality, is_within(quality, budget.value))
        self.trials.append(found)
        return found

    def _quality(self, plan: Plan) -> QualityRecord | None:
        method = self._options.chosen_recipe().compensation
        steps = stages_of(self._opened, plan)
        model = steps[-1].after
        if method != "none":
            how = Options(method=method, seed=self._options.seed, threads=self._options.threads)
            model = refit(steps, self._calibration, how, None, None, self._options.cache).model
        return judge(self._opened, model, self._calibration, self._options, self._own)

    def _plan(self, plan: Plan, trial: Trial) -> Plan:
        quality = trial.quality
        assert quality is not None
        upper = None if quality.drop_upper is None else round(quality.drop_upper, DIGITS)
        own = DropPlan(
            metric=quality.metric, drop=round(quality.drop, DIGITS), upper=upper, data=quality.data,
            samples=quality.samples, trials=len(self.trials),
        )  # fmt: skip
        return plan.model_copy(update={"drop": own})

    def _warnings(self, budget: Budget, trial: Trial) -> tuple[Diagnostic, ...]:
        quality = trial.quality
        if quality is None or quality.drop_upper is None:
            message = "the drop has no margin: the number is no mean over samples, so nothing says how sure it is"
            return (Diagnostic("PC231", message, where="--max-drop", hint="judge it on as much data as there is"),)
        if quality.drop_upper > budget.value:
            samples = quality.samples
            about = f"{samples} samples" if samples else "this data"
            message = (
                f"a drop of {budget.value:g} is finer than {about} can show: they rule out {quality.drop_upper:.2g}"
            )
            enough = samples_for(budget.value)
            hint = "allow more" if enough is None else f"give {enough} samples to judge with, or allow more"
            return (Diagnostic("PC231", message, where="--max-drop", hint=hint),)
        return ()

    def _nothing(self, budget: Budget) -> GateError:
        judged = [trial for trial in self.trials if trial.quality is not None]
        if not judged:
            return GateError("PC530", "no quality was found, so nothing shows that it is kept", where="--max-drop")
        mildest = max(judged, key=lambda trial: trial.predicted)
        assert mildest.quality is not None
        drop, upper = mildest.quality.drop, mildest.quality.drop_upper
        bound = "" if upper is None else f", at most {upper:.3g} on other data (90 %)"
        found = f"{1 / mildest.predicted:.3g} times as fast drops {mildest.quality.metric} by {drop:.3g}{bound}"
        return GateError(
            "PC530",
            f"no model that keeps the quality was measured to be faster than the dense one: {found}",
            where=f"--max-drop {budget.value:g}",
            hint="allow more, give more data with --calib, or recover the quality by training (prunec.prune)",
        )


def is_within(quality: QualityRecord | None, allowed: float) -> bool:
    """Whether the drop with its margin is allowed; where no sample could show it, whether there is none at all."""
    if quality is None:
        return False
    if quality.drop_upper is None:
        return quality.drop <= allowed
    too_few = quality.samples is not None and finest_drop(quality.samples) > allowed
    return quality.drop_upper <= allowed or (too_few and quality.drop <= 0)
