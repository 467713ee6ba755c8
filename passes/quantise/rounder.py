"""Weights of layers in 8 bits, rounded one layer after the other on what the layers before it, in 8 bits, now give.

A `LayerSolver` for `prunec.passes.compensate`: the model it walks through has its activations between quantisers, the
other one is what the outputs should be. Every weight to its nearest value, and of the learnt directions, the sweep that
pays roundings back and (for layers with a pattern) the solve that finds zeros and integers together those that are
asked for are run on held-out data; the best stays.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from prunec.passes.compensate.find import find_layers
from prunec.passes.compensate.fit import Fit, not_finite
from prunec.passes.compensate.judge import Candidate, Judge
from prunec.passes.compensate.layers import Layer, Matrix
from prunec.passes.compensate.options import CompensationRecord, Options
from prunec.passes.compensate.pairs import Pairs
from prunec.passes.compensate.recurrent_sides import Sides
from prunec.passes.quantise.roundings import Method
from prunec.passes.quantise.weights import least_scales
from prunec.passes.solve import LayerProblem
from prunec.passes.solve.grid import grid_for
from prunec.passes.solve.rounding import DAMPINGS, Rounded, jointly, learnt, nearest, swept
from prunec.passes.sparsify import LayerPattern
from prunec.passes.sparsify.problems import problems
from prunec.statistics.collect import CalibrationData

FEW = 16
"""Groups up to which a layer's damping is searched for and its roundings are learnt: more are small systems with next
to nothing to damp, in which single weights change sides."""
ONE_DAMPING = (0.3,)
MARGIN = 2.0
"""What a bias may grow by while it is corrected, and still fit."""


@dataclass(frozen=True)
class RoundedLayer:
    """`steps` [outputs] of the weights. Errors behind the activation on held-out data: of the nearest, of the kept."""

    steps: tuple[float, ...]
    method: str
    error_nearest: float
    error: float
    notes: tuple[str, ...] = ()


class Rounder:
    """`results` by node name. `baseline`: the model that is to be quantised, with the new weights and biases.

    `input_steps`: the scale of what each layer reads. `patterns` of the layers whose zeros may be found anew, from the
    weights that `dense` has. `tried` beside the nearest values.
    """

    baseline: ir.Model

    def __init__(
        self,
        model: ir.Model,
        layers: Collection[str],
        input_steps: Mapping[str, float],
        levels: int,
        patterns: Mapping[str, LayerPattern],
        dense: Mapping[str, Layer],
        tried: Collection[Method] = ("sweep", "joint"),
    ) -> None:
        self.baseline = model.clone()
        self._own = {layer.name: layer for layer in find_layers(self.baseline)[0] if isinstance(layer, Layer)}
        self._taken = frozenset(layers)
        self.input_steps, self.levels = dict(input_steps), levels
        self.patterns, self.dense, self.tried = dict(patterns), dict(dense), frozenset(tried)
        self.results: dict[str, RoundedLayer] = {}

    def start(self, cut: ir.Model) -> None:
        """Nothing to do: `baseline` is there from the beginning."""

    def mask_tables(self, model: ir.Model, calibration: CalibrationData, options: Options) -> list[CompensationRecord]:
        return []

    def takes(self, layer: str) -> bool:
        return layer in self._taken

    def describe(self, layer: str) -> str:
        wanted = self.patterns.get(layer)
        ways = ",".join(sorted(self.tried))
        return f"{self.levels} {ways} {'' if wanted is None else f'{wanted.pattern} {wanted.level!r}'}"

    def result(self, layer: str) -> dict[str, Any] | None:
        found = self.results.get(layer)
        return None if found is None else asdict(found)

    def restore(self, layer: str, result: dict[str, Any]) -> None:
        self.results[layer] = RoundedLayer(**{name: _tuples(value) for name, value in result.items()})

    def solve(self, model: ir.Model, pairs: Pairs, options: Options, number: int) -> CompensationRecord:
        layer = pairs.layer
        fit = Fit(pairs, options, number)
        refusal = pairs.refusal()
        if refusal is not None:
            return self._by_itself(model, fit, refusal)
        judge = Judge(model, pairs, options.threads)
        own, notes = problems(fit, shifts=True)
        least = MARGIN * least_scales(fit.bias, self.input_steps[layer.name])
        found = list(self._candidates(layer.name, fit, own, least))
        plain = found[0][0]
        best, error = plain, judge.errors([plain])[0]
        if error == math.inf:
            raise not_finite(layer)
        error_nearest = error
        best, error = judge.best((plain, error), [candidate for candidate, _ in found[1:]])
        steps = next(steps for candidate, steps in found if candidate is best)
        self._write(model, layer, best.matrix, best.bias)
        self.results[layer.name] = RoundedLayer(
            tuple(steps.tolist()), best.method, error_nearest, error, (*notes, *best.notes)
        )
        return CompensationRecord(layer.name, best.method, best.damping, fit.rows, error_nearest, error, notes=notes)

    def solve_recurrent(self, model: ir.Model, sides: Sides, options: Options, number: int) -> CompensationRecord:
        raise AssertionError("recurrent layers have no 8-bit form and are never taken")

    def _candidates(
        self, name: str, fit: Fit, own: list[LayerProblem], least: np.ndarray
    ) -> Iterator[tuple[Candidate, np.ndarray]]:
        """Candidates and their steps [outputs]; the nearest values, with the bias as it is, come first."""
        parts = list(zip(own, np.split(least, len(own)), strict=True))
        plain = [nearest(problem, self.levels, floor) for problem, floor in parts]
        yield self._candidate(fit, own, plain, shifts=False)
        if fit.layer.can_shift:
            yield self._candidate(fit, own, plain, shifts=True)
        dampings = DAMPINGS if len(own) <= FEW else ONE_DAMPING
        wanted = self.patterns.get(name)
        rows = 1 if wanted is None else wanted.pattern.rows
        if "adaround" in self.tried:
            iterations = None if len(own) <= FEW else 0
            found = [learnt(problem, self.levels, floor, rows, iterations) for problem, floor in parts]
            yield self._candidate(fit, own, found, shifts=True)
        if "sweep" in self.tried:
            better = [swept(problem, self.levels, floor, rows, dampings) for problem, floor in parts]
            if all(isinstance(one, Rounded) for one in better):
                yield self._candidate(fit, own, [one for one in better if isinstance(one, Rounded)], shifts=True)
        if "joint" not in self.tried or not self.patterns or name not in self.dense:
            return
        dense = self.dense[name].matrix().reshape(len(own), fit.outputs, fit.unknowns).astype(np.float64)
        again = [
            (replace(problem, weight=weight), floor) for (problem, floor), weight in zip(parts, dense, strict=True)
        ]
        both = [
            swept(problem, self.levels, floor, 1, dampings)  # its own weights were fitted to other inputs
            if wanted is None
            else jointly(problem, wanted.pattern, wanted.level, self.levels, floor)
            for problem, floor in again
        ]
        if all(isinstance(one, Rounded) for one in both):
            yield self._candidate(fit, own, [one for one in both if isinstance(one, Rounded)], shifts=True)

    def _candidate(
        self, fit: Fit, own: list[LayerProblem], found: Collection[Rounded], *, shifts: bool
    ) -> tuple[Candidate, np.ndarray]:
        weights = [one.weight for one in found]
        bias = fit.bias
        if shifts and fit.layer.can_shift:
            bias = np.concatenate([p.fit.bias(weight) for p, weight in zip(own, weights, strict=True)])
        method = ", ".join(dict.fromkeys(one.trial.method for one in found))
        method += "+bias" if method == "nearest" and shifts else ""
        matrix: Matrix = np.stack(weights).reshape(fit.start.shape)
        notes = tuple(dict.fromkeys(note for one in found for note in one.notes))
        damping = max(one.trial.damping for one in found)
        return Candidate(method, matrix, bias, damping, notes), np.concatenate([one.grid.steps for one in found])

    def _by_itself(self, model: ir.Model, fit: Fit, why: str) -> CompensationRecord:
        """No activations to go by."""
        layer, flat = fit.layer, fit.start.reshape(fit.groups * fit.outputs, -1).astype(np.float64)
        least = MARGIN * least_scales(fit.bias, self.input_steps[layer.name])
        grid = grid_for(flat, self.levels, least=least)
        self._write(model, layer, grid.nearest(flat).reshape(fit.start.shape), fit.bias)
        self.results[layer.name] = RoundedLayer(tuple(grid.steps.tolist()), "nearest", math.nan, math.nan, (why,))
        return CompensationRecord(layer.name, "nearest", 0.0, 0, math.nan, math.nan, notes=(why,))

    def _write(self, model: ir.Model, layer: Layer, matrix: Matrix, bias: np.ndarray) -> None:
        layer.write(model.graph, matrix, bias)
        self._own[layer.name].write(self.baseline.graph, matrix, bias)


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
