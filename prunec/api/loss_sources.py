"""Where the losses of single layers come from (`plan.levels.SOURCES`): three ways to ask the model's outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import onnx_ir as ir

from prunec.api.options import PlanOptions
from prunec.api.progress import Progress, counted
from prunec.api.zeroth_order import QUESTIONS, sensitivity
from prunec.diagnostics import PrunecError
from prunec.frontend.calibration import Calibration
from prunec.passes.solve import SINGLE, Effort
from prunec.passes.sparsify.embeddings import Embedding
from prunec.passes.sparsify.rewriting import rewrite
from prunec.passes.sparsify.supernet import Supernet, Ways
from prunec.passes.sparsify.views import matrices, prunable_layers
from prunec.patterns import Pattern, masked
from prunec.plan.levels import LADDER, MEASURED, SMALLEST, LayerWeights, energy_curve, lost_energy, masks, scaled
from prunec.statistics.output_errors import OutputErrors, sample_count

MOST = 1e6
"""A loss beyond any use: infinite ones could not be added up."""
Inputs = Mapping[str, Sequence[np.ndarray] | None]
"""E[x²] of the columns of each matrix of a layer, None where it is not known."""


class LossSource:
    """Losses of changes of one layer alone, on held-out data, by `options.loss_source`.

    `supernet`: the layers that were solved beforehand, for the source that has some.

    Raises:
        PrunecError PC208: layers are to be solved and nothing of the model is refitted; PC33x: the data does not serve.
    """

    def __init__(
        self,
        names: Sequence[str],
        model: ir.Model,
        pattern: Pattern,
        inputs: Inputs,
        calibration: Calibration,
        options: PlanOptions,
        progress: Progress,
    ) -> None:
        self._model, self._pattern, self._inputs, self._seed = model, pattern, inputs, options.seed
        self._source, fixed = options.loss_source, pattern.fixed_level
        open_shares = LADDER if self._source == "solved" else MEASURED
        self._shares = open_shares if fixed is None else (fixed,)
        self.supernet = self._solved(names, calibration, options, progress) if self._source == "solved" else None
        each = QUESTIONS if self._source == "zeroth-order" else len(self._shares)
        samples = sample_count(model, calibration, len(names) * each)
        step = counted(progress, "measuring layers")
        self._errors = OutputErrors(model, calibration, samples, threads=options.threads, progress=step)

    def curve(self, name: str, weights: LayerWeights, energies: Sequence[np.ndarray]) -> np.ndarray:
        """Loss at every level of the grid, float64 [STEPS], from 0, never falling."""
        energy = energy_curve(weights, energies, self._pattern)
        if self._source == "zeroth-order":
            return np.minimum(self._sensitivity(name) * energy, MOST)
        total = sum(float(own.sum()) for own in energies) or 1.0
        return scaled(left_over(energy, total), self._shares, [self._at(name, share) for share in self._shares])

    def single(self, name: str, weights: LayerWeights, energies: Sequence[np.ndarray], level: float) -> float:
        """Loss at the level that the pattern fixes."""
        if self._source == "zeroth-order":
            return min(self._sensitivity(name) * lost_energy(weights, energies, self._pattern, level), MOST)
        return self._at(name, level)

    def _at(self, name: str, level: float) -> float:
        if self.supernet is not None:
            return min(self._errors.of(self.supernet.assembled({name: level})), MOST)
        return min(self._errors.of(with_masks(self._model, self._pattern, {name: level}, self._inputs)), MOST)

    def _sensitivity(self, name: str) -> float:
        own = np.random.default_rng([self._seed, *name.encode()])
        return sensitivity(self._model, name, self._inputs.get(name), self._errors, own)

    def _solved(
        self, names: Sequence[str], calibration: Calibration, options: PlanOptions, progress: Progress
    ) -> Supernet:
        if options.chosen_recipe().compensation == "none":
            message = "--losses solved is what layers lose when they are solved, and --no-compensate leaves them masked"
            raise PrunecError("PC208", message, where="--losses", hint="use masked, or refit what is left")
        ways = Ways(self._pattern, self._shares, quick_effort(options.solver), options.seed, options.threads)
        step = counted(progress, "solving layers beforehand")
        return Supernet(self._model, names, ways, calibration, options.cache, step)


def quick_effort(solver: str | None) -> Effort:
    """How layers are solved beforehand: `quick` for every effort, the solver itself where one was named."""
    if solver == "udfc":  # which needs the layer before, and falls back to this
        return "wanda"
    return cast(Effort, solver) if solver in SINGLE else "quick"


def left_over(energy: np.ndarray, total: float) -> np.ndarray:
    """−log of the share of the energy that is left: lamp's curve, whose slope is its score."""
    return -np.log(np.maximum(1 - energy / total, SMALLEST))


def with_masks(model: ir.Model, pattern: Pattern, levels: Mapping[str, float], inputs: Inputs) -> ir.Model:
    """A copy whose layers keep the weights of most energy at their `levels`; the weights that stay are as they were."""
    other = model.clone()
    layers = prunable_layers(other)
    for name, level in levels.items():
        layer = layers[name]
        assert not isinstance(layer, Embedding)
        weights = LayerWeights(matrices(layer), inputs.get(name))
        kept = masks(weights, weights.energies(with_inputs=True), pattern, level)
        rewrite(other.graph, layer, [masked(m, mask) for (m, _), mask in zip(weights.parts, kept, strict=True)])
    return other
