"""Plan for a time: choose by predicted times, measure the choice, correct, choose again, a few rounds.

What a choice is, widths of groups (`api.timing`) or zeros of layers (`api.zero_timing`), is the subclass's: a rung for
every cell, 0 for the dense one. So are how it is written to a file and what predicts its time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunec.api.progress import Progress
from prunec.diagnostics import GateError, PrunecError
from prunec.measure.machine import describe_machine
from prunec.measure.shares import QUICK, SURE, Candidate, Share, Watch
from prunec.plan.budget import Budget
from prunec.plan.latency_model import Fit
from prunec.plan.plan import ChoicePlan, Plan, Precision, QuantisedPlan, StepPlan, TimePlan

Rungs = tuple[int, ...]
ROUNDS = 5
CLOSE = 0.04
"""A time at most this share below the limit is not improved on."""
CERTAIN = 4.0
"""What a careful measurement counts beside a quick one."""
DIGITS = 4


@dataclass(frozen=True)
class Point:
    """A choice that was measured; `predicted` before, and its predicted `loss`."""

    rungs: Rungs
    share: Share
    predicted: float
    loss: float


@dataclass(frozen=True)
class Cell:
    """What one cell is at a rung: the group's or layer's name, what is `kept` `of` it, and its predicted loss.

    `precision`: what it computes in, where that is chosen.
    """

    name: str
    kept: float
    of: float
    loss: float
    precision: Precision | None = None


class TimedPlanner(ABC):
    """Plans for times. Everything that was measured serves the next question.

    `stopwatch` times choices beside the dense model. Subclasses call `learn` when they are ready.
    """

    def __init__(self, stopwatch: Watch, threads: int, progress: Progress) -> None:
        self._stopwatch, self._threads, self._progress = stopwatch, threads, progress
        self.known: list[tuple[Rungs, Share, float]] = []

    # -- what a subclass brings -------------------------------------------------------------------------------------
    @property
    @abstractmethod
    def bottom(self) -> Rungs:
        """Every cell at its end."""

    @abstractmethod
    def choose(self, limit: float) -> Rungs | None:
        """What loses least within a predicted share of the dense time; None where nothing is within it."""

    @abstractmethod
    def predict(self, rungs: Sequence[int]) -> float:
        """Predicted time over the dense model's."""

    @abstractmethod
    def loss(self, rungs: Sequence[int]) -> float:
        """What the choice is taken to lose, for comparison with others."""

    @abstractmethod
    def describe(self, rungs: Sequence[int], budget: Budget) -> Plan:
        """The plan with these choices, without a word about times."""

    @abstractmethod
    def cell(self, number: int, rung: int) -> Cell:
        """A cell at one of its rungs."""

    @abstractmethod
    def one_shot(self, rungs: Sequence[int]) -> ir.Model:
        """The canonical model with these choices and nothing refitted, or of layers that were solved beforehand."""

    @property
    def is_presolved(self) -> bool:
        """Whether `one_shot` is put together from solved layers."""
        return False

    @property
    @abstractmethod
    def other_ways(self) -> tuple[str, ...]:
        """Other ways to spread what goes; none where one was asked for."""

    @abstractmethod
    def spread_by(self, way: str) -> TimedPlanner:
        """A planner that knows the same times and spreads by one of the `other_ways`."""

    @abstractmethod
    def candidate(self, rungs: Rungs) -> Candidate:
        """What the stopwatch runs."""

    @abstractmethod
    def refit(self) -> Fit:
        """Make use of all that is `known`; what predictions of left-out times are worth."""

    @property
    @abstractmethod
    def at_its_end(self) -> str:
        """What the narrowest choice is, in words."""

    @property
    def machine(self) -> str:
        """What times are those of."""
        return describe_machine().cpu

    @property
    def is_modelled(self) -> bool:
        """Whether times are those of a model, and nothing is measured."""
        return False

    def quantised(self, number: int, rungs: Rungs) -> QuantisedPlan | None:
        """What 8 bits do to one cell; None where nothing computes in 8 bits."""
        return None

    # -- what they share --------------------------------------------------------------------------------------------
    def learn(self, design: Sequence[Rungs]) -> None:
        """Time these choices first."""

        def tell(done: int, of: int) -> None:
            self._progress(f"{'modelling' if self.is_modelled else 'timing'} whole models", done, of)

        tell(0, len(design))
        found = self._stopwatch.shares([self.candidate(rungs) for rungs in design], how=QUICK, progress=tell)
        self.known += [(rungs, share, 1.0) for rungs, share in zip(design, found, strict=True)]
        self._fit = self.refit()

    @property
    def dense_ms(self) -> float:
        return float(np.median([share.dense_ms for _, share, _ in self.known]))

    @property
    def start(self) -> float:
        """Time with every cell dense over the dense model's, at most 1: generated code may be faster by itself."""
        dense = (0,) * len(self.bottom)
        return min(1.0, next(share.median for rungs, share, _ in self.known if rungs == dense))

    @property
    def floor(self) -> Share:
        """Time with every cell at its end."""
        return next(share for rungs, share, _ in self.known if rungs == self.bottom)

    def meet(self, budget: Budget) -> tuple[Plan, Point]:
        """The plan of least loss that was measured to meet the budget.

        Raises:
            PrunecError PC207: nothing that may be cut is fast enough.
            GateError PC527: the rounds did not suffice; PC528: this machine's noise hides what was asked for.
        """
        limit = budget.time_limit(self.dense_ms)
        if limit >= 1:
            raise PrunecError(
                "PC208", f"the dense model takes {self.dense_ms:.3g} ms {self._place} already",
                where=f"--{budget.kind}", hint="ask for less than that, or leave the model as it is",
            )  # fmt: skip
        self._check_floor(budget, limit)
        tried: list[Point] = []
        aim = limit
        for number in range(ROUNDS):
            self._progress(f"{'modelling' if self.is_modelled else 'measuring'} the choice", number, ROUNDS)
            rungs = self.choose(aim) or self.bottom
            if any(point.rungs == rungs for point in tried):
                break
            point = self.measure(rungs)
            tried.append(point)
            now = point.share.median
            if point.share.width > 1 - limit:
                raise _noisy(budget, point.share)
            if limit * (1 - CLOSE) <= now <= limit:
                break
            aim = limit * self.predict(rungs) / now * (0.995 if now > limit else 1.0)
        good = [point for point in tried if point.share.median <= limit]
        if not good:
            best = min(tried, key=lambda point: point.share.median)
            raise _missed(budget, best.share, len(tried))
        chosen = min(good, key=lambda point: point.loss)
        return self.plan(chosen, budget), chosen

    def measure(self, rungs: Rungs) -> Point:
        """Time the model with this choice with care, and learn from it."""
        predicted = self.predict(rungs)
        (share,) = self._stopwatch.shares([self.candidate(rungs)], how=SURE)
        self.known.append((rungs, share, CERTAIN))
        self._fit = self.refit()
        return Point(rungs, share, predicted, self.loss(rungs))

    def plan(self, point: Point, budget: Budget) -> Plan:
        """The plan with what was measured at `point`."""
        share = point.share
        own = TimePlan(
            share=round(share.median, DIGITS),
            ci95=(round(share.ci95[0], DIGITS), round(share.ci95[1], DIGITS)),
            predicted=round(point.predicted, DIGITS),
            dense_ms=float(f"{share.dense_ms:.4g}"),
            threads=self._threads,
            machine=self.machine,
            modelled=self.is_modelled,
            models=len(self.known),
            error=round(self._fit.error, DIGITS),
            rank_correlation=round(self._fit.rank_correlation, DIGITS),
        )
        why = self.choices(point.rungs)
        return self.describe(point.rungs, budget).model_copy(update={"time": own, "choices": why})

    def choices(self, rungs: Rungs) -> tuple[ChoicePlan, ...]:
        """Why each cell is where it is: what it loses and saves there, and what the steps beside it would change."""
        now = self.predict(rungs)

        def beside(number: int, rung: int) -> StepPlan | None:
            if not 0 <= rung <= self.bottom[number]:
                return None
            here, there = self.cell(number, rungs[number]), self.cell(number, rung)
            time = self.predict((*rungs[:number], rung, *rungs[number + 1 :])) - now
            loss = _short(there.loss - here.loss)
            return StepPlan(kept=_short(there.kept), loss=loss, time=round(time, DIGITS), precision=there.precision)

        found = []
        for number, rung in enumerate(rungs):
            own = self.cell(number, rung)
            dense = self.predict((*rungs[:number], 0, *rungs[number + 1 :]))
            found.append(
                ChoicePlan(
                    name=own.name,
                    kept=_short(own.kept),
                    of=own.of,
                    loss=_short(own.loss),
                    saved=round(dense - now, DIGITS),
                    milder=beside(number, rung - 1),
                    deeper=beside(number, rung + 1),
                    precision=own.precision,
                    quantised=self.quantised(number, rungs),
                )
            )
        return tuple(found)

    def _check_floor(self, budget: Budget, limit: float) -> None:
        low = self.floor
        if low.ci95[0] <= limit:
            return
        fastest = 1 / low.median
        what = f"{fastest:.3g} times as fast, {low.median * self.dense_ms:.3g} ms"
        near = f"{fastest * 0.97:.2f}" if budget.kind == "speedup" else f"{low.median * self.dense_ms * 1.03:.3g}"
        raise PrunecError(
            "PC207",
            f"{self.at_its_end} the model is {what}, not more",
            where=f"--{budget.kind} {budget.value:g}",
            hint=f"--{budget.kind} {near} can be met"
            if fastest > 1.05
            else f"what may be cut hardly costs time {self._place}",
        )

    @property
    def _place(self) -> str:
        return f"as modelled for {self.machine}" if self.is_modelled else "here"


def _short(value: float) -> float:
    return float(f"{value:.4g}") + 0.0  # no -0


def _noisy(budget: Budget, share: Share) -> GateError:
    low, high = share.ci95
    return GateError(
        "PC528",
        f"this machine is too busy: a time is only known to lie between {low:.1%} and {high:.1%} of the dense model's, "
        f"wider than the gain that was asked for",
        where=f"--{budget.kind} {budget.value:g}",
        hint="try again when it is quiet, or ask for more",
    )


def _missed(budget: Budget, share: Share, rounds: int) -> GateError:
    low, high = share.ci95
    interval = f" (95 % interval {low:.1%} to {high:.1%})" if share.width else ""
    return GateError(
        "PC527",
        f"the fastest of {rounds} choices takes {share.median:.1%} of the dense model's time{interval}",
        where=f"--{budget.kind} {budget.value:g}",
        hint="ask for a little less, or try again when the machine is quiet",
    )
