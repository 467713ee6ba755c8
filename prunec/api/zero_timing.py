"""Zeros for a time: which share of each layer goes, by what generated kernels take with it on this machine.

time every layer dense and at each of `LEVELS` in the target's kernels, and whole models → times of all choices
least loss within the time                → a level for each layer (`plan.knapsack`), dense where zeros do not pay
measure the compiled model with those     → accept it, or learn from it and choose again (`api.timed`)

What a layer loses at a level is estimated, as `--allocation loss` does, from the source that `--losses` names: it
ranks choices, and says nothing of the finished model. Zeros lie by magnitude where only times are asked for: they
depend on how many there are. The other allocations spread the zeros as they do without times; only how many there are
is chosen by time.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path as File

import numpy as np
import onnx_ir as ir
from scipy.optimize import nnls

from prunec.api.levels import Spread
from prunec.api.loss_curves import loss_curves
from prunec.api.loss_sources import with_masks
from prunec.api.opening import Opened, timed_sample
from prunec.api.options import PlanOptions
from prunec.api.patterning import target_rules, whole_plan
from prunec.api.progress import Progress
from prunec.api.target_list import backend_for
from prunec.api.timed import Cell, Rungs, TimedPlanner
from prunec.backends.base import Timeable
from prunec.diagnostics import PrunecError
from prunec.frontend.calibration import Calibration
from prunec.measure.shares import Candidate, Stopwatch
from prunec.passes.compensate.layers import Layer
from prunec.passes.sparsify import LayerPattern
from prunec.passes.sparsify.supernet import Supernet
from prunec.passes.sparsify.views import prunable_layers
from prunec.patterns import Pattern
from prunec.plan.budget import Budget
from prunec.plan.knapsack import choose_rungs
from prunec.plan.latency_model import Fit
from prunec.plan.layers import DENSE, choose_layers
from prunec.plan.levels import LADDER, Allocation, grid
from prunec.plan.plan import LayerPlan, Plan

LEVELS = LADDER
"""Shares that may go, where the pattern does not fix its own."""
FINE = tuple(step / 32 for step in range(8, 29))
"""The same where an allocation spreads them: times in between are interpolated."""
MEANS = 64
BETWEEN = 3
"""Whole models that are timed between the dense one and the one with the most zeros."""


class TimedZeros(TimedPlanner):
    """Levels of the layers that can have the pattern, in the kernels of `options.target`.

    `dense`: the dense model as a file.

    Raises:
        PrunecError PC225: no layer can have the pattern, or none has a kernel; PC45x: nothing can be built or run here.
    """

    def __init__(
        self, opened: Opened, dense: File, calibration: Calibration, options: PlanOptions, progress: Progress
    ) -> None:
        pattern = options.sparse_pattern()
        backend: object = backend_for(options.target, options.precision)
        assert pattern is not None and isinstance(backend, Timeable)
        self._opened, self._options, self._pattern, self._backend = opened, options, pattern, backend
        self._allocation: Allocation = options.allocation or "loss"  # type: ignore[assignment]
        self._timed_levels = LEVELS if pattern.fixed_level is None else (pattern.fixed_level,)
        is_fine = self._allocation != "loss" and pattern.fixed_level is None
        self.levels = FINE if is_fine else self._timed_levels
        rules = target_rules(options.target, opened.canonical)
        self._layers = choose_layers(opened.canonical, pattern, self.levels[0], options.include, options.exclude, rules)
        own = prunable_layers(opened.canonical)
        plain = [p.node for p in self._layers if p.pattern != DENSE and isinstance(own[p.node], Layer)]
        self._times = self._layer_times(plain, progress)
        self.cells = tuple(self._times)
        if not self.cells:
            hint = f"prunec explain MODEL --target {options.target} has the reasons"
            message = f"no layer that can be {pattern} has a kernel of its own"
            raise PrunecError("PC225", message, where="--pattern", hint=hint)
        free = {name: layer for name in self.cells if isinstance(layer := own[name], Layer)}
        self._spread: Spread | None = None
        self._supernet: Supernet | None = None
        self._inputs: Mapping[str, list[np.ndarray] | None] = {}
        if self._allocation == "loss":
            self._losses = self._loss_table(free, pattern, calibration, progress)
        else:
            own_spread = Spread(free, opened.canonical, pattern, self._allocation, calibration, options, progress)
            self._sizes = own_spread.sizes
            whole = sum(self._sizes.values())
            self._losses = {name: self._sizes[name] / whole * np.array([0.0, *self.levels]) for name in free}
            self._spread = own_spread
        stopwatch = Stopwatch(
            dense, timed_sample(calibration, opened.canonical, options.made_up_shapes or {}, options.seed),
            identity=f"{opened.source.sha256} {options.target} {pattern} {backend.provenance()}",
            threads=options.threads, seed=options.seed, cache=options.cache, kind=backend.kind,
        )  # fmt: skip
        super().__init__(stopwatch, options.threads, progress)
        self.learn(self._design())

    @property
    def is_presolved(self) -> bool:
        return self._supernet is not None

    @property
    def bottom(self) -> Rungs:
        return (len(self.levels),) * len(self.cells)

    @property
    def at_its_end(self) -> str:
        return f"with {self.levels[-1]:.0%} of the weights of every layer that can be {self._pattern} gone"

    def choose(self, limit: float) -> Rungs | None:
        if self._spread is not None:
            along = (self._spread_out(self._spread, step / MEANS) for step in range(MEANS))
            return next((rungs for rungs in (*along, self.bottom) if self.predict(rungs) <= limit), None)
        found = choose_rungs([self._losses[name] for name in self.cells], self.predict, limit)
        return None if found is None else tuple(found)

    def loss(self, rungs: Sequence[int]) -> float:
        return sum(float(self._losses[name][rung]) for name, rung in zip(self.cells, rungs, strict=True))

    def predict(self, rungs: Sequence[int]) -> float:
        return float(self._coefficients @ [1.0, self._layer_ms(rungs)])

    def describe(self, rungs: Sequence[int], budget: Budget) -> Plan:
        chosen = dict(zip(self.cells, rungs, strict=True))
        layers = tuple(self._planned(layer, chosen.get(layer.node)) for layer in self._layers)
        source = self._options.loss_source if self._spread is None else None
        mean = sum(p.level * self._sizes[p.node] for p in layers if p.node in chosen) / sum(self._sizes.values())
        return whole_plan(self._opened, self._options, budget).model_copy(
            update={"pattern": self._pattern.name, "solver": self._options.solver or "balanced", "layers": layers,
                    "allocation": self._allocation, "losses": source, "level": round(mean, 6)}
        )  # fmt: skip

    def cell(self, number: int, rung: int) -> Cell:
        name = self.cells[number]
        return Cell(name, 1 - (0.0, *self.levels)[rung], 1, float(self._losses[name][rung]))

    def one_shot(self, rungs: Sequence[int]) -> ir.Model:
        levels = {name: own.level for name, own in self._wanted(rungs).items()}
        if self._supernet is not None:
            return self._supernet.assembled(levels)
        return with_masks(self._opened.canonical, self._pattern, levels, self._inputs)

    def refit(self) -> Fit:
        """Time = c + rate · what the layers take by themselves; errors relative to the time."""
        shares = np.array([share.median for _, share, _ in self.known])
        rows = np.array([[1.0, self._layer_ms(rungs)] for rungs, _, _ in self.known])
        weights = np.sqrt([weight for _, _, weight in self.known]) / shares
        self._coefficients = nnls(rows * weights[:, None], shares * weights)[0]
        guess = np.empty(len(shares))
        for left in range(len(shares)):
            seen = np.arange(len(shares)) != left
            own = nnls(rows[seen] * weights[seen, None], shares[seen] * weights[seen])[0]
            guess[left] = rows[left] @ own
        return Fit(guess, shares)

    def candidate(self, rungs: Rungs) -> Candidate:
        wanted = self._wanted(rungs)
        key = json.dumps([[name, own.level] for name, own in wanted.items()])
        return key, lambda: self._written(wanted)

    # -- tables -------------------------------------------------------------------------------------------------------
    def _layer_times(self, names: Sequence[str], progress: Progress) -> dict[str, np.ndarray]:
        """ms of each layer dense and at every level, never rising: float64 [1 + levels]."""
        found: dict[str, list[tuple[float, float]]] = {}
        options, of = self._options, len(self._timed_levels)
        model, shapes = self._opened.canonical, options.made_up_shapes or None
        for number, level in enumerate(self._timed_levels):
            progress("timing layers", number, of)
            wanted = {name: LayerPattern(self._pattern, level) for name in names}
            times = self._backend.times(model, wanted, options.threads, shapes, options.cache)
            for name, own in times.items():
                found.setdefault(name, []).append((own.dense_us, own.sparse_us))
        progress("timing layers", of, of)
        falling = {
            name: np.minimum.accumulate([min(d for d, _ in own), *(s for _, s in own)]) / 1e3
            for name, own in found.items()
            if len(own) == of
        }
        places = [0.0, *self.levels], [0.0, *self._timed_levels]
        return {name: np.interp(*places, own) for name, own in falling.items()}

    def _loss_table(
        self, layers: Mapping[str, Layer], pattern: Pattern, calibration: Calibration, progress: Progress
    ) -> dict[str, np.ndarray]:
        """Loss of each layer dense and at every level."""
        model, options = self._opened.canonical, self._options
        found = loss_curves(layers, model, pattern, "loss", calibration, options, progress)
        self._inputs, self._sizes, self._supernet = found.inputs, found.sizes, found.supernet
        if pattern.fixed_level is not None:
            return {name: np.array([0.0, found.losses[name]]) for name in layers}
        return {name: np.interp([0.0, *self.levels], grid(), found.curves[name]) for name in layers}

    def _spread_out(self, spread: Spread, mean: float) -> Rungs:
        """Every layer at the level nearest to the one that it is given, dense where zeros do not pay."""
        levels, known = spread.levels(mean), np.array([0.0, *self.levels])
        near = {name: int(np.abs(known - levels[name]).argmin()) for name in self.cells}
        return tuple(rung if self._times[name][rung] < self._times[name][0] else 0 for name, rung in near.items())

    # -- single choices -----------------------------------------------------------------------------------------------
    def _layer_ms(self, rungs: Sequence[int]) -> float:
        return sum(float(self._times[name][rung]) for name, rung in zip(self.cells, rungs, strict=True))

    def _wanted(self, rungs: Sequence[int]) -> dict[str, LayerPattern]:
        return {
            name: LayerPattern(self._pattern, self.levels[rung - 1])
            for name, rung in zip(self.cells, rungs, strict=True)
            if rung
        }

    def _planned(self, layer: LayerPlan, rung: int | None) -> LayerPlan:
        """`layer` at its rung; one that is no cell stays dense."""
        if rung is None and layer.pattern == DENSE:
            return layer
        if not rung:
            why = "has no kernel that was timed" if rung is None else "others lose less for the time they save"
            if self._spread is not None and rung == 0:
                why = f"{self._allocation}: others can spare more, or zeros do not pay"
            return layer.model_copy(update={"pattern": DENSE, "level": 0.0, "why": why})
        times = self._times[layer.node]
        lost = float(self._losses[layer.node][rung])
        reason = f"for an estimated loss of {lost:.2g}" if self._spread is None else f"level by {self._allocation}"
        why = f"{times[rung] * 1e3:.3g} µs, dense {times[0] * 1e3:.3g} µs, {reason}"
        return layer.model_copy(update={"level": self.levels[rung - 1], "why": why})

    def _design(self) -> list[Rungs]:
        """The dense one, all in between at one level each, and the one with the most zeros."""
        count = len(self.levels)
        between = np.unique(np.linspace(0, count, BETWEEN + 2).round().astype(int))
        return [(int(rung),) * len(self.cells) for rung in between]

    @contextlib.contextmanager
    def _written(self, wanted: Mapping[str, LayerPattern]) -> Iterator[File]:
        with tempfile.TemporaryDirectory(prefix="prunec-") as folder:
            shapes = self._options.made_up_shapes or None
            yield self._backend.write_timed(File(folder), self._opened.canonical, wanted, shapes)
