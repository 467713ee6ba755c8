"""What the sequential driver hands sparse layers to.

Every group of a layer is solved for its pattern (`prunec.passes.solve`), on the inputs that the layers before it,
pruned already, now give, against what the dense model gives. The plain mask, the plain mask with a corrected bias, and
the solution are then run on held-out data and judged behind the activation; the best one is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from prunec.passes.compensate import recurrent
from prunec.passes.compensate.fit import Fit, not_finite
from prunec.passes.compensate.judge import Candidate, Judge
from prunec.passes.compensate.layers import Layer
from prunec.passes.compensate.options import CompensationRecord, Options
from prunec.passes.compensate.pairs import Pairs
from prunec.passes.compensate.recurrent_layer import CellWeights, RecurrentLayer
from prunec.passes.compensate.recurrent_sides import Sides
from prunec.passes.solve import MASKS, SINGLE, Effort, LayerProblem, Solution, solve
from prunec.passes.sparsify.data_free import solve_data_free
from prunec.passes.sparsify.embeddings import Embedding, embeddings, frequencies, masked_table
from prunec.passes.sparsify.problems import problems
from prunec.passes.sparsify.recurrent import solve_sums
from prunec.passes.sparsify.rewriting import with_matrices
from prunec.passes.sparsify.views import matrices, prunable_layers
from prunec.patterns import Layout, Pattern, masked
from prunec.statistics.collect import CalibrationData

Double = np.ndarray
DataFree = Literal["udfc"]
Solve = Callable[[LayerProblem, Pattern, float, Effort], Solution]


@dataclass(frozen=True)
class LayerPattern:
    """What one layer is to become."""

    pattern: Pattern
    level: float


@dataclass(frozen=True)
class LayerResult:
    """What happened to one layer.

    Errors are relative squares: `error_fit`, `error_held_out` of the layer's own outputs ‖t − Ŵx‖²/‖t‖² (summed over
    groups), `error_plain`, `error` behind its activation on held-out data, for the plain mask and for what was written.
    """

    layer: str
    method: str
    damping: float
    error_fit: float
    error_held_out: float
    error_plain: float
    error: float
    notes: tuple[str, ...]


class Sparsifier:
    """A `LayerSolver` for `prunec.passes.compensate`. `layers`: by node name. `results` fill up as layers are done."""

    baseline: ir.Model

    def __init__(self, layers: Mapping[str, LayerPattern], effort: Effort | DataFree, solve: Solve = solve) -> None:
        """`effort`: how much is done, or the name of one solver.

        `solve`: what to put in the place of `passes.solve.solve`, as comparisons with other methods do.
        """
        self.layers, self.effort, self._solve = dict(layers), effort, solve
        self.results: dict[str, LayerResult] = {}

    def start(self, cut: ir.Model) -> None:
        self.baseline = cut.clone()
        self._plain = prunable_layers(self.baseline)

    def mask_tables(self, model: ir.Model, calibration: CalibrationData, options: Options) -> list[CompensationRecord]:
        own = {name: table for name, table in embeddings(model).items() if name in self.layers}
        if not own:
            return []
        counts = frequencies(model, own, calibration, options.threads)
        records = []
        for name, embedding in own.items():
            wanted, plain = self.layers[name], self._plain[name]
            assert isinstance(plain, Embedding)
            found = masked_table(embedding, counts[name], wanted.pattern, wanted.level)
            embedding.write(model.graph, found)
            plain.write(self.baseline.graph, found)
            seen = int((counts[name] > 0).sum())
            note = f"magnitude by how often rows are read: {seen} of {len(counts[name])} rows were, others count once"
            self.results[name] = LayerResult(name, "frequency", 0.0, math.nan, math.nan, math.nan, math.nan, (note,))
            records.append(CompensationRecord(name, "frequency", 0.0, 0, math.nan, math.nan, notes=(note,)))
        return records

    def takes(self, layer: str) -> bool:
        return layer in self.layers

    def describe(self, layer: str) -> str:
        wanted = self.layers.get(layer)
        return "" if wanted is None else f"{wanted.pattern} {wanted.level!r} {self.effort}"

    def result(self, layer: str) -> dict[str, Any] | None:
        found = self.results.get(layer)
        return None if found is None else asdict(found)

    def restore(self, layer: str, result: dict[str, Any]) -> None:
        self.results[layer] = LayerResult(**{**result, "notes": tuple(result["notes"])})

    def solve(self, model: ir.Model, pairs: Pairs, options: Options, number: int) -> CompensationRecord:
        layer, wanted = pairs.layer, self.layers[pairs.layer.name]
        refusal = pairs.refusal()
        if refusal is not None:
            return self._by_magnitude(model, layer, wanted, refusal)
        fit, judge = Fit(pairs, options, number), Judge(model, pairs, options.threads)
        own, notes = problems(fit)
        only_masks = options.method == "none"  # with other layers left as they are, this one is only masked too
        solved, more = self._solutions(model, layer, own, wanted, only_masks=only_masks)
        plain = Candidate(solved[0].plain_method, _joined([s.plain for s in solved], fit), fit.bias)
        best, error = plain, judge.errors([plain])[0]
        if error == math.inf:
            raise not_finite(layer)
        error_plain = error
        if not only_masks:
            best, error = judge.best((plain, error), _candidates(fit, own, solved, plain))
        layer.write(model.graph, best.matrix, best.bias)
        self._write_plain(layer.name, plain.matrix)
        said = tuple(dict.fromkeys(note for s in solved for note in s.notes))
        if solved[0].chosen.method in SINGLE and solved[0].chosen.method not in (*MASKS, best.method):
            more = (*more, f"{solved[0].chosen.method} gave no better outputs on held-out data than {best.method}")
        notes = (*notes, *more, *said, *(() if layer.can_shift else ("there is no bias to correct",)))
        chosen = [s.plain if best.matrix is plain.matrix else s.weight for s in solved]
        fitted = sum(p.fit.error(w) * p.fit.power for p, w in zip(own, chosen, strict=True))
        held_out = sum(p.held_out.error(w) * p.held_out.power for p, w in zip(own, chosen, strict=True))
        self.results[layer.name] = LayerResult(
            layer=layer.name,
            method=best.method,
            damping=best.damping,
            error_fit=fitted / (sum(p.fit.power for p in own) or 1.0),
            error_held_out=held_out / (sum(p.held_out.power for p in own) or 1.0),
            error_plain=error_plain,
            error=error,
            notes=notes,
        )
        residual, method = pairs.residual is not None, "none" if best is plain else best.method
        return CompensationRecord(layer.name, method, best.damping, fit.rows, error_plain, error, residual, notes)

    def _solutions(
        self, model: ir.Model, layer: Layer, own: list[LayerProblem], wanted: LayerPattern, *, only_masks: bool
    ) -> tuple[list[Solution], tuple[str, ...]]:
        """One per group, and why they are not by the solver that was named."""
        effort, notes = self.effort, tuple[str, ...]()
        if effort == "udfc" and not only_masks:
            found = solve_data_free(model, layer, own, wanted.pattern, wanted.level)
            if not isinstance(found, str):
                return found, notes
            notes = (f"{found}: Wanda's mask stands",)
        by: Effort = "wanda" if effort == "udfc" else effort
        by = "mask" if only_masks and by not in MASKS else by
        return [self._solve(problem, wanted.pattern, wanted.level, by) for problem in own], notes

    def solve_recurrent(self, model: ir.Model, sides: Sides, options: Options, number: int) -> CompensationRecord:
        layer = sides.layers[1]
        wanted = self.layers[layer.name]
        refusal = sides.refusal()
        if refusal is not None:
            weights = with_matrices(layer, [self._largest(w, layout, wanted) for w, layout in matrices(layer)])
            self._write_cell(model, layer, weights, weights)
            return self._magnitude_record(layer.name, refusal)
        fit, only_masks = recurrent.Fit(sides, options, number), options.method == "none"
        effort: Effort = "wanda" if self.effort == "udfc" else self.effort
        effort = "mask" if only_masks and effort not in MASKS else effort
        found = solve_sums(fit, lambda p: self._solve(p, wanted.pattern, wanted.level, effort), shifts=not only_masks)
        self._write_cell(model, layer, found.best.weights, found.plain)
        best, (error_plain, error) = found.best, found.errors
        if self.effort == "udfc":
            found = replace(found, notes=("UDFC knows no recurrent layers: Wanda's mask stands", *found.notes))
        self.results[layer.name] = LayerResult(
            layer.name, best.method, best.damping, found.fitted, found.held_out, error_plain, error, found.notes
        )
        method = "none" if best.weights is found.plain else best.method
        return CompensationRecord(layer.name, method, best.damping, fit.rows, error_plain, error, notes=found.notes)

    def _write_cell(self, model: ir.Model, layer: RecurrentLayer, weights: CellWeights, plain: CellWeights) -> None:
        other = self._plain[layer.name]
        assert isinstance(other, RecurrentLayer)
        recurrent.write_weights(model.graph, layer, weights)
        recurrent.write_weights(self.baseline.graph, other, plain)

    def _largest(self, weight: Double, layout: Layout, wanted: LayerPattern) -> Double:
        return masked(weight, wanted.pattern.project(np.square(weight), layout, wanted.level))

    def _magnitude_record(self, name: str, why: str) -> CompensationRecord:
        note, nan = f"by magnitude: {why}", math.nan
        self.results[name] = LayerResult(name, "magnitude", 0.0, nan, nan, nan, nan, (note,))
        return CompensationRecord(name, "magnitude", 0.0, 0, nan, nan, notes=(note,))

    def _by_magnitude(self, model: ir.Model, layer: Layer, wanted: LayerPattern, why: str) -> CompensationRecord:
        """No activations to go by: the largest weights stay as they are."""
        matrix = layer.matrix().astype(np.float64)
        groups, outputs, positions, channels = matrix.shape
        layout = Layout(positions, channels)
        flat = matrix.reshape(groups, outputs, -1)
        found = np.stack([self._largest(w, layout, wanted) for w in flat]).reshape(matrix.shape)
        layer.write(model.graph, found, layer.bias())
        self._write_plain(layer.name, found)
        return self._magnitude_record(layer.name, why)

    def _write_plain(self, name: str, matrix: Double) -> None:
        layer = self._plain[name]
        assert isinstance(layer, Layer)
        layer.write(self.baseline.graph, matrix, layer.bias())


def _candidates(fit: Fit, own: list[LayerProblem], solved: list[Solution], plain: Candidate) -> list[Candidate]:
    """With corrected biases where there are any."""
    found = []
    if fit.layer.can_shift:
        found.append(Candidate(f"{plain.method}+bias", plain.matrix, _biases(own, [s.plain for s in solved])))
    weights = [s.weight for s in solved]
    bias = _biases(own, weights) if fit.layer.can_shift else fit.bias
    methods = dict.fromkeys(s.chosen.method for s in solved)
    damping = max(s.chosen.damping for s in solved)
    if list(methods) != [plain.method]:
        found.append(Candidate(", ".join(methods), _joined(weights, fit), bias, damping))
    return found


def _joined(weights: list[Double], fit: Fit) -> Double:
    return np.stack(weights).reshape(fit.start.shape)


def _biases(own: list[LayerProblem], weights: list[Double]) -> Double:
    return np.concatenate([problem.fit.bias(weight) for problem, weight in zip(own, weights, strict=True)])
