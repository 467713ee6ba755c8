"""What each layer loses at every level: the curves that allocations compare layers by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunec.api.options import PlanOptions
from prunec.api.progress import Progress, counted
from prunec.frontend.calibration import Calibration
from prunec.graph import analyse
from prunec.passes.compensate.layers import Layer
from prunec.passes.sparsify.views import matrices, prunable_layers
from prunec.patterns import Pattern
from prunec.plan.levels import (
    MEASURED,
    SMALLEST,
    Allocation,
    LayerWeights,
    energy_curve,
    lost_energy,
    masks,
    scaled,
)
from prunec.statistics import LayerStatistics, collect
from prunec.statistics.output_errors import OutputErrors, sample_count


@dataclass(frozen=True)
class LossCurves:
    """What each layer loses, by name: at every level of `plan.levels.grid`, or at the pattern's own (`losses`).

    `sizes`: numbers of weights; `inputs`: E[x²] of the columns of each matrix, None where it was not asked for.
    """

    curves: Mapping[str, np.ndarray]
    losses: Mapping[str, float]
    sizes: dict[str, int]
    inputs: Mapping[str, list[np.ndarray] | None]


def loss_curves(
    layers: Mapping[str, Layer],
    model: ir.Model,
    pattern: Pattern,
    allocation: Allocation,
    calibration: Calibration,
    options: PlanOptions,
    progress: Progress,
) -> LossCurves:
    """The curves that `allocation` (lamp, global, loss) compares layers by."""
    by_loss = allocation == "loss"
    fixed = pattern.fixed_level
    shares: tuple[float, ...] = MEASURED if fixed is None else (fixed,)
    seen: dict[str, LayerStatistics] = {}
    errors: OutputErrors | None = None
    if by_loss:
        step = counted(progress, "statistics")
        seen = collect(
            model, analyse(model), calibration, frozenset({"moments"}), threads=options.threads, seed=options.seed,
            cache=options.cache, progress=step,
        )  # fmt: skip
        samples = sample_count(model, calibration, len(layers) * len(shares))
        step = counted(progress, "measuring layers")
        errors = OutputErrors(model, calibration, samples, threads=options.threads, progress=step)
    curves: dict[str, np.ndarray] = {}
    losses: dict[str, float] = {}
    sizes: dict[str, int] = {}
    inputs = {name: _inputs(layer, seen.get(name)) for name, layer in layers.items()}

    def error(name: str, level: float) -> float:
        """What the outputs lose with a mask on this layer alone."""
        assert errors is not None
        return min(errors.of(with_masks(model, pattern, {name: level}, inputs)), 1e6)

    for name, layer in layers.items():
        weights = LayerWeights(matrices(layer), inputs[name])
        energies = weights.energies(with_inputs=by_loss)
        total = sum(float(energy.sum()) for energy in energies) or 1.0
        sizes[name] = weights.size
        measured = [error(name, share) for share in shares] if by_loss else []
        if fixed is not None:
            losses[name] = measured[0] if by_loss else lost_energy(weights, energies, pattern, fixed)
            continue
        curve = energy_curve(weights, energies, pattern)
        if allocation != "global":
            curve = -np.log(np.maximum(1 - curve / total, SMALLEST))
        curves[name] = scaled(curve, shares, measured) if by_loss else curve
    return LossCurves(curves, losses, sizes, inputs)


def with_masks(
    model: ir.Model, pattern: Pattern, levels: Mapping[str, float], inputs: Mapping[str, list[np.ndarray] | None]
) -> ir.Model:
    """A copy whose layers keep the weights of most energy at their `levels`; the weights that stay are as they were."""
    other = model.clone()
    layers = prunable_layers(other)
    for name, level in levels.items():
        layer = layers[name]
        assert isinstance(layer, Layer)
        weights = LayerWeights(matrices(layer), inputs.get(name))
        matrix = layer.matrix()
        kept = np.stack(masks(weights, weights.energies(with_inputs=True), pattern, level)).reshape(matrix.shape)
        layer.write(other.graph, matrix * kept, layer.bias())
    return other


def _inputs(layer: Layer, seen: LayerStatistics | None) -> list[np.ndarray] | None:
    """E[x²] of the columns of each matrix: that of the input channel, at every kernel position."""
    if seen is None:
        return None
    groups, _, positions, channels = layer.matrix().shape
    if seen.second_moment_diag.size != groups * channels:
        return None
    return [np.tile(own, positions) for own in seen.second_moment_diag.reshape(groups, channels)]
