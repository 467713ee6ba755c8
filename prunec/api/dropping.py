"""Plan for quality: the fastest model whose drop, with a margin for the number of samples, is within what is allowed.

Widths for a time are those of the planner for times (`api.timing`). The span of times between the narrowest and the
dense model is halved, on a logarithmic scale; each choice is cut, refitted and judged as a compile would do it. What
passed is measured afterwards, the fastest first, and taken if its whole interval lies below the dense model's time.

The margin is a 90 % confidence bound on the drop for other data of the same kind (`verify.margins`). A handful of looks
at the same data make it a little less than that.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass

from prunec.api.choices import Judge, with_drop
from prunec.api.contest import Contest
from prunec.api.progress import Progress
from prunec.api.timed import Point, TimedPlanner
from prunec.diagnostics import Diagnostic, GateError
from prunec.measure.shares import Share
from prunec.plan.budget import Budget
from prunec.plan.plan import Plan
from prunec.verify.bounds import finest_drop, samples_for
from prunec.verify.records import QualityRecord

TRIALS = 6
CLOSE = 1.04
"""Times nearer to each other than this are not told apart."""


@dataclass(frozen=True)
class Trial:
    """A choice that was cut, refitted and judged; `predicted` is its share of the dense time."""

    rungs: tuple[int, ...]
    predicted: float
    quality: QualityRecord | None
    is_good: bool


class DropPlanner:
    """Judges the choices of `timed`. `slow`: what kept the quality and was not measured to be faster than dense."""

    def __init__(self, timed: TimedPlanner, judge: Judge, progress: Progress) -> None:
        self._timed, self._judge, self._progress = timed, judge, progress
        self.trials: list[Trial] = []
        self.slow: Share | None = None

    def fastest(self, budget: Budget, contest: Contest | None = None) -> tuple[Plan, tuple[Diagnostic, ...]]:
        """The plan, and what there is to say about the data.

        Where the `contest` has another way that loses less at the time which was found, the search goes on with that
        from there.

        Raises:
            GateError PC530: nothing that keeps the quality is measured to be faster than the dense model.
        """
        made, point, trial = self._found(budget, 1.0)
        if contest is not None:
            asked = Budget(kind="speedup", value=float(f"{1 / point.share.median:.4g}"))
            best = contest.best(self._timed, made, point, asked)
            if best.planner is not self._timed:
                other = DropPlanner(best.planner, self._judge, self._progress)
                found = other._faster(best.point, budget)
                if found is not None and found[1].share.median <= point.share.median:
                    made, point, trial = found
                self.trials += other.trials
            made = made.model_copy(update={"contest": best.plan.contest})
        assert made.drop is not None
        drop = made.drop.model_copy(update={"trials": len(self.trials)})
        return made.model_copy(update={"drop": drop}), self._warnings(budget, trial)

    def _faster(self, known: Point, budget: Budget) -> tuple[Plan, Point, Trial] | None:
        """The fastest that passes from the measured `known` on; None where not even that does."""
        trial = self._trial(known.rungs, budget)
        if not trial.is_good or trial.quality is None:
            return None
        with contextlib.suppress(GateError):
            found = self._found(budget, trial.predicted)
            if found[1].share.median < known.share.median:
                return found
        return with_drop(self._timed.plan(known, budget), trial.quality, len(self.trials)), known, trial

    def _found(self, budget: Budget, slowest: float) -> tuple[Plan, Point, Trial]:
        """The fastest that passes between the floor and a share `slowest` of the dense time. GateError PC530."""
        narrow, wide = self._timed.floor.median, slowest
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
                assert trial.quality is not None
                return with_drop(self._timed.plan(point, budget), trial.quality, len(self.trials)), point, trial
            self.slow = self.slow or point.share
        raise self._nothing(budget)

    def checked(self, made: Plan, allowed: float) -> Plan:
        """`made`, which meets a budget of time, with its drop, if that is at most `allowed`.

        Raises:
            GateError PC534: it is not. What can be had instead is looked for, and all that was judged is in `details`:
            `compromise` keeps the quality, or where nothing faster does, the speed.
        """
        self._progress("judging the choice", 0, 0)
        quality = self._judge.quality(made)
        if quality is not None and quality.drop <= allowed:
            return with_drop(made, quality, 1)
        assert made.time is not None
        asked = f"--{made.budget.kind} {made.budget.value:g} --max-drop {allowed:g}"
        found = "no quality was found" if quality is None else f"{quality.metric} drops by {quality.drop:.3g}"
        reached = compromise = _point(made.time.share, quality, is_measured=not made.time.modelled)
        try:
            best, _ = self.fastest(Budget.of("max-drop", allowed))
            assert best.time is not None and best.drop is not None
            compromise = {"speedup": 1 / best.time.share, "is_measured": not best.time.modelled, "drop": best.drop.drop}
            if best.drop.upper is not None:
                compromise["drop_upper"] = best.drop.upper
            way = " by itself"
            if made.contest and best.allocation:
                way = f" with --allocation {best.allocation}"
            elif made.contest and best.scope == "loss":  # other scopes that are compared have no option
                way = " with --scope loss"
            hint = f"--max-drop {allowed:g}{way} gives {1 / best.time.share:.3g} times as fast"
        except GateError as no:
            hint = f"{no.diagnostic.message}; {no.diagnostic.hint}"
        curve = [_point(trial.predicted, trial.quality, is_measured=False) for trial in self.trials]
        raise GateError(
            "PC534",
            f"both cannot be had: at {1 / made.time.share:.3g} times as fast {found}",
            where=asked,
            hint=hint,
            details={
                "reached": reached,
                "compromise": compromise,
                "curve": sorted([*curve, reached], key=lambda point: point["speedup"]),
            },
        )

    def _trial(self, rungs: tuple[int, ...], budget: Budget) -> Trial:
        known = next((trial for trial in self.trials if trial.rungs == rungs), None)
        if known is not None:
            return known
        quality = self._judge.quality(self._timed.describe(rungs, budget))
        found = Trial(rungs, self._timed.predict(rungs), quality, is_within(quality, budget.value))
        self.trials.append(found)
        return found

    def _warnings(self, budget: Budget, trial: Trial) -> tuple[Diagnostic, ...]:
        quality = trial.quality
        if quality is None or quality.drop_upper is None:
            message = "the drop has no margin: no group of the samples says how sure the number is"
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
        is_own = any(trial.quality is not None and trial.quality.data == "user" for trial in judged)
        more = "let --metric judge on more samples" if is_own else "give more data with --calib"
        hint = f"allow more, {more}, or recover the quality by training (--recover, beside --speedup)"
        where = f"--max-drop {budget.value:g}"
        if self.slow is not None:
            low, high = (1 / share for share in reversed(self.slow.ci95))
            message = "what keeps the quality is too little faster than the dense model to be told from noise"
            found = f"{1 / self.slow.median:.3g} times as fast, 95 % interval {low:.3g} to {high:.3g}"
            return GateError("PC530", f"{message}: {found}", where=where, hint=hint)
        mildest = max(judged, key=lambda trial: trial.predicted)
        assert mildest.quality is not None
        drop, upper = mildest.quality.drop, mildest.quality.drop_upper
        bound = "" if upper is None else f", at most {upper:.3g} on other data (90 %)"
        found = f"what is predicted to be {1 / mildest.predicted:.3g} times as fast drops {mildest.quality.metric} by "
        message = f"nothing that is faster than the dense model keeps the quality: {found}{drop:.3g}{bound}"
        return GateError("PC530", message, where=where, hint=hint)


def _point(share: float, quality: QualityRecord | None, *, is_measured: bool) -> dict[str, float | bool]:
    """What a program reads of a choice; what is not known is absent. `is_measured`: the speed-up, not predicted."""
    point: dict[str, float | bool] = {"speedup": 1 / share, "is_measured": is_measured}
    if quality is not None:
        point["drop"] = quality.drop
        if quality.drop_upper is not None:
            point["drop_upper"] = quality.drop_upper
    return point


def is_within(quality: QualityRecord | None, allowed: float) -> bool:
    """Whether the drop with its margin is allowed; where no sample could show it, whether there is none at all."""
    if quality is None:
        return False
    if quality.drop_upper is None:
        return quality.drop <= allowed
    too_few = quality.samples is not None and finest_drop(quality.samples) > allowed
    return quality.drop_upper <= allowed or (too_few and quality.drop <= 0)
