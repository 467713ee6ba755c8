"""Pre-solved layers: every layer solved at several levels beforehand, and models put together from them.

Týr-the-Pruner (arXiv 2503.09657) prunes each layer at a range of sparsities first and then searches through what can be
assembled, without solving anything again. Here every layer is solved by itself: it reads what it reads in the dense
model, so the order of the layers does not matter, one walk through the model gives the second moments for all levels of
a layer, and no layer knows what the ones before it will lose. (The paper's layers read a mean of what pruned layers
before them give.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType

import numpy as np
import onnx_ir as ir

from prunec.array_store import ArrayStore
from prunec.cache import Cache
from prunec.graph import analyse
from prunec.made_by import made_by
from prunec.passes.compensate import Options, compensate
from prunec.passes.compensate.fit import Fit
from prunec.passes.compensate.layers import Layer
from prunec.passes.compensate.options import CompensationRecord
from prunec.passes.compensate.pairs import Pairs
from prunec.passes.compensate.recurrent import Fit as FitRecurrent
from prunec.passes.compensate.recurrent import write_weights
from prunec.passes.compensate.recurrent_layer import CellWeights, RecurrentLayer
from prunec.passes.compensate.recurrent_sides import Sides
from prunec.passes.solve import Effort, solve
from prunec.passes.sparsify.problems import problems
from prunec.passes.sparsify.recurrent import dense_problems, solve_sums
from prunec.passes.sparsify.rewriting import with_matrices
from prunec.passes.sparsify.views import matrices, prunable_layers
from prunec.patterns import Layout, Pattern, masked
from prunec.statistics.cache import model_fingerprint
from prunec.statistics.collect import CalibrationData
from prunec.working_memory import working_bytes

WEIGHT, BIAS = "weight", "bias"
CELL = ("w", "r", "b")
"""The same of a recurrent layer (`recurrent_layer.CellWeights`)."""
Progress = Callable[[int, int, str], None]
"""(layers done, layers in all, name of the layer)."""


@dataclass(frozen=True)
class Ways:
    """How layers are solved: to which `pattern`, at which `levels`, with how much `effort`."""

    pattern: Pattern
    levels: tuple[float, ...]
    effort: Effort
    seed: int = 0
    threads: int = 1


class Supernet:
    """The layers of `model` named `names`, each at every level of `ways`.

    Weights beyond a quarter of the model's bytes are in a temporary file without a name. With a `cache` a layer that
    was finished is not solved again, whatever ended the run that solved it.

    Raises:
        PrunecError PC330: activations are not finite; PC331: not enough samples; PC332: a system cannot be solved.
    """

    def __init__(
        self,
        model: ir.Model,
        names: Sequence[str],
        ways: Ways,
        calibration: CalibrationData,
        cache: Cache | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.model, self.ways = model, ways
        self._store: ArrayStore[tuple[str, float, str]] = ArrayStore(working_bytes(model))
        try:
            self._fill(names, calibration, cache, progress)
        except BaseException:
            self._store.close()
            raise

    def assembled(self, levels: Mapping[str, float]) -> ir.Model:
        """A copy of the model with each layer of `levels` as it was solved for that level, the others as they are."""
        other = self.model.clone()
        layers = prunable_layers(other)
        for name, level in levels.items():
            layer = layers[name]
            if isinstance(layer, RecurrentLayer):
                cell = CellWeights(*(self._store.get((name, level, part)) for part in CELL))
                write_weights(other.graph, layer, cell)
                continue
            assert isinstance(layer, Layer)
            layer.write(other.graph, *(self._store.get((name, level, part)) for part in (WEIGHT, BIAS)))
        return other

    def close(self) -> None:
        self._store.close()

    def __enter__(self) -> Supernet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fill(
        self, names: Sequence[str], calibration: CalibrationData, cache: Cache | None, progress: Progress | None
    ) -> None:
        model = self.model if cache is None else model_fingerprint(self.model)

        def key(name: str) -> str:
            return repr(("presolved", made_by(), model, calibration.fingerprint, name, repr(self.ways)))

        def keep(name: str, arrays: Mapping[str, np.ndarray]) -> None:
            self._put(name, arrays)
            if cache is not None:
                cache.write(key(name), arrays)

        missing = []
        for name in names:
            found = None if cache is None else cache.read(key(name))
            if found is None:
                missing.append(name)
            else:
                self._put(name, found[0])
        if missing:
            solver = _Presolver(self.ways, missing, keep)
            analysis = analyse(self.model)
            own = Options(method="none", residual=False, gate=False, seed=self.ways.seed, threads=self.ways.threads)
            alive = np.ones(analysis.channel_count, bool)
            compensate(self.model, self.model, analysis, alive, calibration, own, progress, solver)

    def _put(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        for key, array in arrays.items():
            part, number = key.split(".")
            self._store.put((name, self.ways.levels[int(number)], part), array)


class _Presolver:
    """A `LayerSolver` that leaves the model as it is and hands what it found to `keep`."""

    baseline: ir.Model

    def __init__(self, ways: Ways, names: Sequence[str], keep: Callable[[str, Mapping[str, np.ndarray]], None]) -> None:
        self._ways, self._names, self._keep = ways, frozenset(names), keep

    def start(self, cut: ir.Model) -> None:
        self.baseline = cut

    def mask_tables(self, model: ir.Model, calibration: CalibrationData, options: Options) -> list[CompensationRecord]:
        return []

    def takes(self, layer: str) -> bool:
        return layer in self._names

    def describe(self, layer: str) -> str:
        return repr(self._ways)

    def result(self, layer: str) -> None:
        return None

    def restore(self, layer: str, result: object) -> None:
        raise AssertionError("nothing is kept in a ledger")

    def solve(self, model: ir.Model, pairs: Pairs, options: Options, number: int) -> CompensationRecord:
        """At every level from the same moments. Where nothing is known of its inputs, the largest weights stay."""
        layer, ways = pairs.layer, self._ways
        refusal = pairs.refusal()
        fit = None if refusal is not None else Fit(pairs, options, number)
        own = [] if fit is None else problems(fit, shifts=True)[0]
        kept: dict[str, np.ndarray] = {}
        for place, level in enumerate(ways.levels):
            if fit is None:
                weight, bias = _largest(layer, ways.pattern, level), layer.bias()
            else:
                found = [solve(problem, ways.pattern, level, ways.effort).weight for problem in own]
                weight, bias = np.stack(found).reshape(fit.start.shape), fit.bias
                if layer.can_shift:
                    bias = np.concatenate([p.fit.bias(w) for p, w in zip(own, found, strict=True)])
            kept[f"{WEIGHT}.{place}"] = weight.astype(layer.weight_type, copy=False)
            kept[f"{BIAS}.{place}"] = bias
        self._keep(layer.name, kept)
        return CompensationRecord(layer.name, "none", 0.0, 0 if fit is None else fit.rows, 0.0, 0.0)

    def solve_recurrent(self, model: ir.Model, sides: Sides, options: Options, number: int) -> CompensationRecord:
        """At every level, on the states of the unpruned layer: what a level makes of them is left to the compile."""
        layer, ways = sides.layers[1], self._ways
        fit = None if sides.refusal() is not None else FitRecurrent(sides, options, number)
        own = None if fit is None else dense_problems(fit)
        kept: dict[str, np.ndarray] = {}
        for place, level in enumerate(ways.levels):
            if fit is None:
                weights = _largest_cell(layer, ways.pattern, level)
            else:
                by = partial(solve, pattern=ways.pattern, level=level, effort=ways.effort)
                weights = solve_sums(fit, by, shifts=True, rounds=1, problems=own).best.weights
            for part, array in zip(CELL, (weights.w, weights.r, weights.b), strict=True):
                kept[f"{part}.{place}"] = array.astype(np.float32)
        self._keep(layer.name, kept)
        return CompensationRecord(layer.name, "none", 0.0, 0 if fit is None else fit.rows, 0.0, 0.0)


def _largest_cell(layer: RecurrentLayer, pattern: Pattern, level: float) -> CellWeights:
    own = [masked(w, pattern.project(np.square(w), layout, level)) for w, layout in matrices(layer)]
    return with_matrices(layer, own)


def _largest(layer: Layer, pattern: Pattern, level: float) -> np.ndarray:
    matrix = layer.matrix()
    groups, outputs, positions, channels = matrix.shape
    flat = matrix.reshape(groups, outputs, -1)
    layout = Layout(positions, channels)
    return np.stack([masked(w, pattern.project(np.square(w), layout, level)) for w in flat]).reshape(matrix.shape)
