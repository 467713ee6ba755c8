"""Widths for a time: what they cost on this machine is learnt from whole models cut at random.

time some whole models, cut at random   → what each layer's width costs among its neighbours (`plan.latency_model`)
least loss within the time              → widths (`plan.knapsack`); other scopes follow their own path
measure the model with those widths     → accept it, or learn from it and choose again (`api.timed`)
"""

from __future__ import annotations

import contextlib
import copy
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path as File

import numpy as np
import onnx_ir as ir

from prunec.api.opening import Opened, timed_sample
from prunec.api.options import PlanOptions
from prunec.api.progress import Progress
from prunec.api.timed import Cell, Rungs, TimedPlanner
from prunec.frontend.calibration import Calibration
from prunec.measure.shares import Candidate, Stopwatch
from prunec.package.writer import save_model
from prunec.passes.slice_channels import slice_channels
from prunec.plan.allocate import Ladder, Path
from prunec.plan.budget import Budget
from prunec.plan.impossible import nothing_goes
from prunec.plan.knapsack import choose_rungs, losses
from prunec.plan.latency_model import Fit, LatencyModel, LayerCosts
from prunec.plan.plan import Plan, Scope
from prunec.plan.planner import Planner

MODELS = (14, 40)
"""Fewest and most whole models that are timed: two for each cell in between."""
SPREAD = 0.25
"""Standard deviation, in shares of a cell, of the rungs of a random choice around their mean."""


OTHERS: tuple[Scope, ...] = ("layer", "global")
"""What spreads a cut beside the choice by loss: channels go in that one's order, as far, and "global" compares losses.

So they are not what `--scope` of that name gives, whose channels are ordered by their scores.
"""


class TimedWidths(TimedPlanner):
    """Widths of what `planner` can cut, in ONNX Runtime.

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
        self._opened, self._planner, self._options = opened, planner, options
        self._scope: Scope = planner.scope
        self._own_path = planner.path()
        if not len(self._own_path):
            raise nothing_goes(self._own_path, planner.selection, floor=planner.floor, step=planner.step)
        self.ladders = self._own_path.ladders
        self._curves = [*(losses(ladder) for ladder in self.ladders), *self.extra_curves()]
        stopwatch = Stopwatch(
            dense, timed_sample(calibration, opened.canonical, options.made_up_shapes or {}, options.seed),
            identity=opened.source.sha256, threads=options.threads, seed=options.seed, cache=options.cache,
        )  # fmt: skip
        super().__init__(stopwatch, options.threads, progress)
        self.learn(self._design())

    @property
    def bottom(self) -> Rungs:
        return tuple(len(ladder.rungs) - 1 for ladder in self.ladders)

    @property
    def other_ways(self) -> tuple[str, ...]:
        about = (self._options.recipe, self._options.criterion, self._options.scope)
        return OTHERS if about == (None, None, None) else ()

    def spread_by(self, way: str) -> TimedWidths:
        other = copy.copy(self)
        other.known = list(self.known)
        other._scope = way  # type: ignore[assignment]
        other._own_path = self._planner.path(scope=other._scope)
        return other

    @property
    def at_its_end(self) -> str:
        return f"with every group at its least width ({self._planner.floor:.0%} of it)"

    def choose(self, limit: float) -> Rungs | None:
        if self._scope != "loss":
            length = self._own_path.shortest(lambda n: self._model.share(self._own_path.alive(n)) <= limit)
            return None if length is None else self._rungs_of(self._own_path, length)
        found = choose_rungs(self._curves, self.predict, limit)
        return None if found is None else tuple(found)

    def loss(self, rungs: Sequence[int]) -> float:
        """Sum of the losses of the cells: what the planner takes the model's to be."""
        return sum(float(curve[rung]) for curve, rung in zip(self._curves, rungs, strict=True))

    def alive(self, rungs: Sequence[int]) -> np.ndarray:
        """bool per class id."""
        return alive_of(self._opened.analysis.channel_count, self.ladders, rungs)

    @property
    def costs(self) -> LayerCosts:
        """What layers cost in a `state`."""
        return self._planner.costs

    def state(self, rungs: Sequence[int]) -> np.ndarray:
        """What times depend on: bool per class id."""
        return self.alive(rungs)

    def extra_curves(self) -> list[np.ndarray]:
        """Losses of cells that are no widths; they come behind those."""
        return []

    def predict(self, rungs: Sequence[int]) -> float:
        return self._model.share(self.state(rungs))

    def describe(self, rungs: Sequence[int], budget: Budget) -> Plan:
        steps = np.repeat(np.arange(len(self.ladders)), rungs)
        path = Path(self._opened.analysis, self.ladders, steps, np.zeros(len(steps)))
        return self._planner.describe(path, len(steps), budget, scope=self._scope)

    def cell(self, number: int, rung: int) -> Cell:
        ladder = self.ladders[number]
        return Cell(ladder.group.id, ladder.rungs[rung], ladder.size, float(self._curves[number][rung]))

    def one_shot(self, rungs: Sequence[int]) -> ir.Model:
        return slice_channels(self._opened.canonical, self._opened.analysis, self.alive(rungs))

    def refit(self) -> Fit:
        states = [self.state(rungs) for rungs, _, _ in self.known]
        shares = [share.median for _, share, _ in self.known]
        weights = [weight for _, _, weight in self.known]
        self._model = LatencyModel(self._opened.canonical, self.costs, states, shares, weights)
        return self._model.fit

    def candidate(self, rungs: Rungs) -> Candidate:
        """Its key is the widths: which channels make them up costs no time."""
        widths = [
            [ladder.group.id, np.sort(ladder.order).tolist(), ladder.rungs[rung]]
            for ladder, rung in zip(self.ladders, rungs, strict=False)
        ]
        return json.dumps(widths), lambda: self._written(rungs)

    def _design(self) -> list[tuple[int, ...]]:
        """The dense one, the narrowest, and some in between whose widths differ from layer to layer."""
        most = self.bottom
        count = int(np.clip(2 * len(most) + 4, *MODELS))
        between = random_rungs(most, count - 2, np.random.default_rng(self._options.seed))
        return list(dict.fromkeys([(0,) * len(most), most, *between]))

    @contextlib.contextmanager
    def _written(self, rungs: Rungs) -> Iterator[File]:
        with tempfile.TemporaryDirectory(prefix="prunec-") as folder:
            path = File(folder, "model.onnx")
            save_model(self.one_shot(rungs), path)
            yield path

    def _rungs_of(self, path: Path, length: int) -> tuple[int, ...]:
        return tuple(np.bincount(path.steps[:length], minlength=len(self.ladders)).tolist())


def random_rungs(most: Sequence[int], count: int, rng: np.random.Generator) -> Iterator[Rungs]:
    """`count` choices whose cells differ, their means evenly between nothing and `most`."""
    for number in range(count):
        share = (number + 0.5) / count + SPREAD * rng.standard_normal(len(most))
        yield tuple(np.rint(np.clip(share, 0, 1) * most).astype(int).tolist())


def alive_of(classes: int, ladders: Sequence[Ladder], rungs: Sequence[int]) -> np.ndarray:
    """bool [classes] with every ladder at its rung."""
    alive = np.ones(classes, bool)
    for ladder, rung in zip(ladders, rungs, strict=True):
        alive[ladder.group.channels[ladder.order[ladder.rungs[rung] :]]] = False
    return alive
