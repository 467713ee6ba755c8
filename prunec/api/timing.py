"""Plan for a time: learn what widths cost on this machine, choose, measure the choice, correct, choose again.

time some whole models, cut at random   → what each layer's width costs among its neighbours (`plan.latency_model`)
least loss within the time              → widths (`plan.knapsack`); other scopes follow their own path
measure the model with those widths     → accept it, or learn from it and choose again, a few rounds
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path as File

import numpy as np

from prunec.api.opening import Opened, one_sample
from prunec.api.options import PlanOptions
from prunec.api.progress import Progress
from prunec.diagnostics import GateError, PrunecError
from prunec.frontend.calibration import Calibration
from prunec.measure.machine import describe_machine
from prunec.measure.shares import QUICK, SURE, Candidate, Share, Stopwatch
from prunec.package.writer import save_model
from prunec.passes.slice_channels import slice_channels
from prunec.plan.allocate import Ladder, Path
from prunec.plan.budget import Budget
from prunec.plan.impossible import nothing_goes
from prunec.plan.knapsack import choose_rungs, losses
from prunec.plan.latency_model import LatencyModel
from prunec.plan.plan import Plan, TimePlan
from prunec.plan.planner import Planner

MODELS = (14, 40)
"""Fewest and most whole models that are timed: two for each cell in between."""
SPREAD = 0.25
"""Standard deviation, in shares of a ladder, of the widths of one of these models around their mean."""
ROUNDS = 5
CLOSE = 0.04
"""A time at most this share below the limit is not improved on."""
CERTAIN = 4.0
"""What a careful measurement counts beside a quick one."""
DIGITS = 4


@dataclass(frozen=True)
class Point:
    """A cut that was measured: `rungs` of the ladders, predicted `loss`."""

    rungs: tuple[int, ...]
    share: Share
    predicted: float
    loss: float


class TimedPlanner:
    """Plans for times, of what `planner` can cut. Everything that was measured serves the next question.

    `dense`: the dense model as a file (`saving.dense_file`).

    Raises PrunecError PC207 where nothing may go, GateError PC512 to PC515 where a model cannot be timed.
    """

    def __init__(
        self,
        opened: Opened,
        planner: Planner,
        dense: File,
        calibration: Calibration,
        options: PlanOptions,
        progress: Progress,
    ) -> None:
        self._opened, self._planner, self._options, self._progress = opened, planner, options, progress
        self._own_path = planner.path()
        if not len(self._own_path):
            raise nothing_goes(self._own_path, planner.selection, floor=planner.floor, step=planner.step)
        self.ladders = self._own_path.ladders
        self._stopwatch = Stopwatch(
            dense, one_sample(calibration, opened.canonical), identity=opened.source.sha256, threads=options.threads,
            seed=options.seed, cache=options.cache,
        )  # fmt: skip
        self._known: list[tuple[tuple[int, ...], Share, float]] = []
        self._learn(self._design())

    @property
    def dense_ms(self) -> float:
        return float(np.median([share.dense_ms for _, share, _ in self._known]))

    @property
    def bottom(self) -> tuple[int, ...]:
        """Every ladder at its end."""
        return tuple(len(ladder.rungs) - 1 for ladder in self.ladders)

    @property
    def floor(self) -> Share:
        """Time with every ladder at its end."""
        return next(share for rungs, share, _ in self._known if rungs == self.bottom)

    def meet(self, budget: Budget) -> tuple[Plan, Point]:
        """The plan of least loss that was measured to meet the budget.

        Raises:
            PrunecError PC207: nothing that may be cut is fast enough.
            GateError PC527: the rounds did not suffice; PC528: this machine's noise hides what was asked for.
        """
        limit = budget.time_limit(self.dense_ms)
        if limit >= 1:
            raise PrunecError(
                "PC208", f"the dense model takes {self.dense_ms:.3g} ms here already", where=f"--{budget.kind}",
                hint="ask for less than that, or leave the model as it is",
            )  # fmt: skip
        self._check_floor(budget, limit)
        tried: list[Point] = []
        aim = limit
        for number in range(ROUNDS):
            self._progress("measuring the choice", number, ROUNDS)
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

    def choose(self, limit: float) -> tuple[int, ...] | None:
        """Rungs whose predicted time is within `limit`; None where none is."""
        if self._planner.scope != "loss":
            length = self._own_path.shortest(lambda n: self._model.share(self._own_path.alive(n)) <= limit)
            return None if length is None else self._rungs_of(self._own_path, length)
        found = choose_rungs(self.ladders, self.predict, limit)
        return None if found is None else tuple(found)

    def measure(self, rungs: tuple[int, ...]) -> Point:
        """Time the model with these widths with care, and learn from it."""
        predicted = self.predict(rungs)
        (share,) = self._stopwatch.shares([self._candidate(rungs)], how=SURE)
        self._known.append((rungs, share, CERTAIN))
        self._refit()
        return Point(rungs, share, predicted, self.loss(rungs))

    def loss(self, rungs: Sequence[int]) -> float:
        """Sum of the losses of the cells: what the planner takes the model's to be."""
        return sum(float(losses(ladder)[rung]) for ladder, rung in zip(self.ladders, rungs, strict=True))

    def alive(self, rungs: Sequence[int]) -> np.ndarray:
        """bool per class id."""
        return alive_of(self._opened.analysis.channel_count, self.ladders, rungs)

    def predict(self, rungs: Sequence[int]) -> float:
        """Predicted time over the dense model's."""
        return self._model.share(self.alive(rungs))

    def describe(self, rungs: Sequence[int], budget: Budget) -> Plan:
        """The plan with these widths, without a word about times."""
        steps = np.repeat(np.arange(len(self.ladders)), rungs)
        path = Path(self._opened.analysis, self.ladders, steps, np.zeros(len(steps)))
        return self._planner.describe(path, len(steps), budget)

    def plan(self, point: Point, budget: Budget) -> Plan:
        """The plan with the widths that were measured at `point`."""
        made = self.describe(point.rungs, budget)
        share, fit = point.share, self._model.fit
        return made.model_copy(
            update={
                "time": TimePlan(
                    share=round(share.median, DIGITS),
                    ci95=(round(share.ci95[0], DIGITS), round(share.ci95[1], DIGITS)),
                    predicted=round(point.predicted, DIGITS),
                    dense_ms=float(f"{share.dense_ms:.4g}"),
                    threads=self._options.threads,
                    machine=describe_machine().cpu,
                    models=len(self._known),
                    error=round(fit.error, DIGITS),
                    rank_correlation=round(fit.rank_correlation, DIGITS),
                )
            }
        )

    # -- learning ---------------------------------------------------------------------------------------------------
    def _design(self) -> list[tuple[int, ...]]:
        """The dense one, the narrowest, and some in between whose widths differ from layer to layer."""
        most = np.array(self.bottom)
        count = int(np.clip(2 * len(most) + 4, *MODELS))
        rng = np.random.default_rng(self._options.seed)
        found = [(0,) * len(most), self.bottom]
        for number in range(count - 2):
            share = (number + 0.5) / (count - 2) + SPREAD * rng.standard_normal(len(most))
            found.append(tuple(np.rint(np.clip(share, 0, 1) * most).astype(int).tolist()))
        return list(dict.fromkeys(found))

    def _learn(self, design: Sequence[tuple[int, ...]]) -> None:
        def tell(done: int, of: int) -> None:
            self._progress("timing whole models", done, of)

        tell(0, len(design))
        found = self._stopwatch.shares([self._candidate(rungs) for rungs in design], how=QUICK, progress=tell)
        self._known += [(rungs, share, 1.0) for rungs, share in zip(design, found, strict=True)]
        self._refit()

    def _refit(self) -> None:
        alive = [self.alive(rungs) for rungs, _, _ in self._known]
        shares = [share.median for _, share, _ in self._known]
        weights = [weight for _, _, weight in self._known]
        self._model = LatencyModel(self._opened.canonical, self._planner.costs, alive, shares, weights)

    def _candidate(self, rungs: tuple[int, ...]) -> Candidate:
        """Its key is the widths: which channels make them up costs no time."""
        alive = self.alive(rungs)
        widths = [
            [ladder.group.id, np.sort(ladder.order).tolist(), ladder.rungs[rung]]
            for ladder, rung in zip(self.ladders, rungs, strict=True)
        ]
        return json.dumps(widths), lambda: self._written(alive)

    @contextlib.contextmanager
    def _written(self, alive: np.ndarray) -> Iterator[File]:
        with tempfile.TemporaryDirectory(prefix="prunec-") as folder:
            path = File(folder, "model.onnx")
            save_model(slice_channels(self._opened.canonical, self._opened.analysis, alive), path)
            yield path

    def _rungs_of(self, path: Path, length: int) -> tuple[int, ...]:
        return tuple(np.bincount(path.steps[:length], minlength=len(self.ladders)).tolist())

    def _check_floor(self, budget: Budget, limit: float) -> None:
        low = self.floor
        if low.ci95[0] <= limit:
            return
        fastest = 1 / low.median
        what = f"{fastest:.3g} times as fast, {low.median * self.dense_ms:.3g} ms"
        near = f"{fastest * 0.97:.2f}" if budget.kind == "speedup" else f"{low.median * self.dense_ms * 1.03:.3g}"
        raise PrunecError(
            "PC207",
            f"with every group at its least width ({self._planner.floor:.0%} of it) the model is {what}, not more",
            where=f"--{budget.kind} {budget.value:g}",
            hint=f"--{budget.kind} {near} can be met" if fastest > 1.05 else "what may be cut hardly costs time here",
        )


def alive_of(classes: int, ladders: Sequence[Ladder], rungs: Sequence[int]) -> np.ndarray:
    """bool [classes] with every ladder at its rung."""
    alive = np.ones(classes, bool)
    for ladder, rung in zip(ladders, rungs, strict=True):
        alive[ladder.group.channels[ladder.order[ladder.rungs[rung] :]]] = False
    return alive


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
    return GateError(
        "PC527",
        f"the fastest of {rounds} choices takes {share.median:.1%} of the dense model's time "
        f"(95 % interval {low:.1%} to {high:.1%})",
        where=f"--{budget.kind} {budget.value:g}",
        hint="ask for a little less, or try again when the machine is quiet",
    )
