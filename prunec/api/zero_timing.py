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
import copy
import functools
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path as File

import numpy as np
import onnx_ir as ir
from scipy.optimize import nnls

from prunec.api.levels import Spread
from prunec.api.loss_curves import loss_curves
from prunec.api.loss_sources import with_masks
from prunec.api.opening import Opened
from prunec.api.options import PlanOptions
from prunec.api.patterning import target_rules, whole_plan
from prunec.api.progress import Progress
from prunec.api.target_list import MIXED, backend_for
from prunec.api.timed import Cell, Rungs, TimedPlanner
from prunec.api.watches import watch_for
from prunec.api.zero_ladders import Ladder, Option, at_levels
from prunec.backends.base import Modelling, Timeable
from prunec.diagnostics import PrunecError
from prunec.frontend.calibration import Calibration
from prunec.measure.shares import Candidate
from prunec.passes.sparsify import LayerPattern
from prunec.passes.sparsify.embeddings import Embedding
from prunec.passes.sparsify.supernet import Supernet
from prunec.passes.sparsify.views import prunable_layers
from prunec.plan.budget import Budget
from prunec.plan.knapsack import choose_rungs
from prunec.plan.latency_model import Fit
from prunec.plan.layers import DENSE, choose_layers
from prunec.plan.levels import LADDER, Allocation, Source, grid
from prunec.plan.plan import LayerPlan, Plan

LEVELS = LADDER
"""Shares that may go, where the pattern does not fix its own."""
FINE = tuple(step / 32 for step in range(8, 29))
"""The same where an allocation spreads them: times in between are interpolated."""
FEW = 4
"""Layers below which they are solved at all levels to know their losses, where nobody asked for another source."""
OTHERS: tuple[Allocation, ...] = ("uniform", "erk", "lamp")
"""What spreads zeros beside the choice by loss."""
MEANS = 64
BETWEEN = 3
"""Whole models that are timed between the dense one and the one with the most zeros."""


class TimedZeros(TimedPlanner):
    """Levels of the layers that can have the pattern, in the kernels of `options.target`.

    `dense`: the dense model as a file, or as `watches.timed_dense` gives it.

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
        self._calibration = calibration
        self._allocation: Allocation = options.allocation or "loss"  # type: ignore[assignment]
        self._timed_levels = LEVELS if pattern.fixed_level is None else (pattern.fixed_level,)
        model, least = opened.canonical, self._timed_levels[0]
        rules = target_rules(options.target, model)
        self._layers = choose_layers(model, pattern, least, options.include, options.exclude, rules)
        found = prunable_layers(model)
        self._own = {name: layer for name, layer in found.items() if not isinstance(layer, Embedding)}
        plain = [p.node for p in self._layers if p.pattern != DENSE and p.node in self._own]
        is_fine = self._allocation != "loss" and pattern.fixed_level is None
        self.levels = FINE if is_fine else self._timed_levels
        self._source = self._loss_source(len(plain))
        self._spread: Spread | None = None
        self._supernet: Supernet | None = None
        self._inputs: Mapping[str, list[np.ndarray] | None] = {}
        self._sizes: Mapping[str, int] = {}
        self._ladders = self._make_ladders(plain, calibration, progress)
        self.cells = tuple(self._ladders)
        if not self.cells or max(self.bottom) == 0:
            hint = f"prunec explain MODEL --target {options.target} has the reasons"
            has = "a kernel of its own" if not self.is_modelled else "a time of its own: recurrent ones have no model"
            message = f"no layer that can be {pattern} has {has}"
            raise PrunecError("PC225", message, where="--pattern", hint=hint)
        watch = watch_for(backend, dense, opened, calibration, options, pattern.name)
        super().__init__(watch, options.threads, progress)
        self.learn(self._design())

    def _loss_source(self, layers: int) -> Source:
        """Where losses come from: solving a few layers at every level costs little, and masks say least of few."""
        options = self._options
        is_solved = options.chosen_recipe().compensation != "none" and options.precision is None
        if options.losses is None and layers < FEW and is_solved and self._allocation == "loss":
            return "solved"
        return options.loss_source

    @property
    def machine(self) -> str:
        return self._backend.machine()

    @property
    def is_modelled(self) -> bool:
        return isinstance(self._backend, Modelling)

    @property
    def is_presolved(self) -> bool:
        return self._supernet is not None

    @property
    def other_ways(self) -> tuple[str, ...]:
        given, fixed = (self._options.allocation, self._options.losses), self._pattern.fixed_level
        is_open = given == (None, None) and fixed is None and self._options.precision != MIXED
        return OTHERS if is_open else ()

    def spread_by(self, way: str) -> TimedZeros:
        other, fine = copy.copy(self), tuple(level for level in FINE if level <= self.levels[-1])
        other._allocation = way  # type: ignore[assignment]
        other._supernet, other.levels = None, fine
        names = [name for name, ladder in self._ladders.items() if len(ladder) > 1]
        losses = other._zero_losses(names, self._calibration, self._progress)
        other._ladders = {
            name: at_levels(ladder, (0.0, *fine), losses[name])
            if name in losses
            else tuple(replace(option, loss=0.0) for option in ladder)
            for name, ladder in self._ladders.items()
        }
        places = {level: place for place, level in enumerate((0.0, *fine))}
        other.known = [
            (tuple(places[option.level] for option in self._at(rungs).values()), share, weight)
            for rungs, share, weight in self.known
        ]
        return other

    @property
    def bottom(self) -> Rungs:
        return tuple(len(ladder) - 1 for ladder in self._ladders.values())

    @property
    def at_its_end(self) -> str:
        return f"with {self.levels[-1]:.0%} of the weights of every layer that can be {self._pattern} gone"

    def choose(self, limit: float) -> Rungs | None:
        if self._spread is not None:
            along = (self._spread_out(self._spread, step / MEANS) for step in range(MEANS))
            return next((rungs for rungs in (*along, self.bottom) if self.predict(rungs) <= limit), None)
        losses = [np.array([option.loss for option in ladder]) for ladder in self._ladders.values()]
        found = choose_rungs(losses, self.predict, limit)
        return None if found is None else tuple(found)

    def loss(self, rungs: Sequence[int]) -> float:
        return sum(option.loss for option in self._at(rungs).values())

    def predict(self, rungs: Sequence[int]) -> float:
        return float(self._coefficients @ [1.0, self._layer_ms(rungs)])

    def describe(self, rungs: Sequence[int], budget: Budget) -> Plan:
        chosen = self._at(rungs)
        layers = tuple(self._planned(layer, chosen.get(layer.node)) for layer in self._layers)
        source = self._source if self._spread is None else None
        mean = sum(p.level * self._sizes.get(p.node, 0) for p in layers) / max(sum(self._sizes.values()), 1)
        return whole_plan(self._opened, self._options, budget).model_copy(
            update={"pattern": self._pattern.name, "solver": self._options.solver or "balanced", "layers": layers,
                    "allocation": self._allocation, "losses": source, "level": round(mean, 6)}
        )  # fmt: skip

    def cell(self, number: int, rung: int) -> Cell:
        name = self.cells[number]
        option = self._ladders[name][rung]
        return Cell(name, 1 - option.level, 1, option.loss, option.precision)

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
        wanted, backend = self._wanted(rungs), self._backend_at(rungs)
        return self._key(rungs), lambda: self._written(backend, wanted)

    # -- tables -------------------------------------------------------------------------------------------------------
    def _make_ladders(self, names: Sequence[str], calibration: Calibration, progress: Progress) -> dict[str, Ladder]:
        """Every one of the layers that has a kernel, dense and at every level."""
        times = self._layer_times(self._backend, names, self._timed_levels, progress)
        losses = self._zero_losses(tuple(times), calibration, progress)
        return {
            name: tuple(
                Option(level, float(ms), float(loss))
                for level, ms, loss in zip((0.0, *self.levels), own, losses[name], strict=True)
            )
            for name, own in times.items()
        }

    def _layer_times(
        self, backend: Timeable, names: Sequence[str], levels: Sequence[float], progress: Progress
    ) -> dict[str, np.ndarray]:
        """ms of each layer dense and at every one of `self.levels`, never rising: float64 [1 + levels].

        Timed at `levels`, and interpolated in between.
        """
        found: dict[str, list[tuple[float, float]]] = {}
        options, of = self._options, len(levels)
        model, shapes = self._opened.canonical, options.made_up_shapes or None
        wanted = [{name: LayerPattern(self._pattern, level) for name in names} for level in levels if names]
        how = "modelling layers" if isinstance(backend, Modelling) else "timing layers"
        tell = functools.partial(progress, how)
        for times in backend.layer_times(model, wanted, options.threads, shapes, options.cache, tell):
            for name, own in times.items():
                found.setdefault(name, []).append((own.dense_us, own.sparse_us))
        tell(of, of)
        falling = {
            name: np.minimum.accumulate([min(d for d, _ in own), *(s for _, s in own)]) / 1e3
            for name, own in found.items()
            if len(own) == of
        }
        places = [0.0, *self.levels], [0.0, *levels]
        return {name: np.interp(*places, own) for name, own in falling.items()}

    def _zero_losses(self, names: Sequence[str], calibration: Calibration, progress: Progress) -> dict[str, np.ndarray]:
        """What the zeros of each layer lose, dense and at every level; where others spread them, how many there are."""
        model, options, pattern = self._opened.canonical, self._options, self._pattern
        layers = {name: self._own[name] for name in names}
        if not layers:
            return {}
        if self._allocation != "loss":
            self._spread = Spread(layers, model, pattern, self._allocation, calibration, options, progress)
            self._sizes = self._spread.sizes
            whole = sum(self._sizes.values())
            return {name: self._sizes[name] / whole * np.array([0.0, *self.levels]) for name in layers}
        asked = replace(options, losses=self._source)
        found = loss_curves(layers, model, pattern, "loss", calibration, asked, progress)
        self._inputs, self._sizes, self._supernet = found.inputs, found.sizes, found.supernet
        if pattern.fixed_level is not None:
            return {name: np.array([0.0, found.losses[name]]) for name in layers}
        return {name: np.interp([0.0, *self.levels], grid(), found.curves[name]) for name in layers}

    def _spread_out(self, spread: Spread, mean: float) -> Rungs:
        """Every layer at the level nearest to the one that it is given, dense where zeros do not pay."""
        levels, found = spread.levels(mean), list[int]()
        for name, ladder in self._ladders.items():
            known = np.array([option.level for option in ladder])
            rung = int(np.abs(known - levels.get(name, 0.0)).argmin())
            found.append(rung if ladder[rung].ms < ladder[0].ms else 0)
        return tuple(found)

    # -- single choices -----------------------------------------------------------------------------------------------
    def _at(self, rungs: Sequence[int]) -> dict[str, Option]:
        return {name: ladder[rung] for (name, ladder), rung in zip(self._ladders.items(), rungs, strict=True)}

    def _layer_ms(self, rungs: Sequence[int]) -> float:
        return sum(option.ms for option in self._at(rungs).values())

    def _wanted(self, rungs: Sequence[int]) -> dict[str, LayerPattern]:
        return {
            name: LayerPattern(self._pattern, option.level) for name, option in self._at(rungs).items() if option.level
        }

    def _backend_at(self, rungs: Sequence[int]) -> Timeable:
        """What compiles the choice."""
        return self._backend

    def _key(self, rungs: Sequence[int]) -> str:
        """What tells the choice from others."""
        return json.dumps([[name, own.level] for name, own in self._wanted(rungs).items()])

    def _planned(self, layer: LayerPlan, option: Option | None) -> LayerPlan:
        """`layer` as it was chosen; one that is no cell stays dense."""
        if layer.pattern == DENSE:
            return layer
        if option is None or not option.level:
            why = "has no kernel that was timed" if option is None else "others lose less for the time they save"
            if self._spread is not None and option is not None:
                why = f"{self._allocation}: others can spare more, or zeros do not pay"
            return layer.model_copy(update={"pattern": DENSE, "level": 0.0, "why": why})
        reason = f"level by {self._allocation}"
        if self._spread is None:
            reason = f"for an estimated loss of {option.loss:.2g}"
        dense_us = self._ladders[layer.node][0].ms * 1e3
        how = ", modelled" if self.is_modelled else ""
        why = f"{option.ms * 1e3:.3g} µs, dense {dense_us:.3g} µs{how}, {reason}"
        return layer.model_copy(update={"level": option.level, "why": why})

    def _design(self) -> list[Rungs]:
        """The dense one, all in between at one level each, and the one with the most zeros."""
        places = (np.array(self.bottom) * share for share in np.linspace(0, 1, BETWEEN + 2))
        return list(dict.fromkeys(tuple(int(rung) for rung in own.round()) for own in places))

    @contextlib.contextmanager
    def _written(self, backend: Timeable, wanted: Mapping[str, LayerPattern]) -> Iterator[File]:
        with tempfile.TemporaryDirectory(prefix="prunec-") as folder:
            shapes = self._options.made_up_shapes or None
            yield backend.write_timed(File(folder), self._opened.canonical, wanted, shapes)
