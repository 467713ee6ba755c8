"""What each layer loses at every level: the curves that allocations compare layers by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunec.api.loss_sources import LossSource, left_over
from prunec.api.options import PlanOptions
from prunec.api.progress import Progress, counted
from prunec.frontend.calibration import Calibration
from prunec.graph import analyse
from prunec.passes.compensate.recurrent_layer import RecurrentLayer
from prunec.passes.sparsify.rewriting import Weighted
from prunec.passes.sparsify.supernet import Supernet
from prunec.passes.sparsify.views import matrices
from prunec.patterns import Pattern
from prunec.plan.levels import Allocation, LayerWeights, energy_curve, lost_energy
from prunec.statistics import LayerStatistics, collect


@dataclass(frozen=True)
class LossCurves:
    """What each layer loses, by name: at every level of `plan.levels.grid`, or at the pattern's own (`losses`).

    `sizes`: numbers of weights; `inputs`: E[x²] of the columns of each matrix, None where it was not asked for;
    `supernet`: the layers that were solved to find out, where they were.
    """

    curves: Mapping[str, np.ndarray]
    losses: Mapping[str, float]
    sizes: dict[str, int]
    inputs: Mapping[str, list[np.ndarray] | None]
    supernet: Supernet | None = None


def loss_curves(
    layers: Mapping[str, Weighted],
    model: ir.Model,
    pattern: Pattern,
    allocation: Allocation,
    calibration: Calibration,
    options: PlanOptions,
    progress: Progress,
) -> LossCurves:
    """The curves that `allocation` (lamp, global, loss) compares layers by.

    Raises:
        PrunecError PC208, PC33x: as `loss_sources.LossSource`.
    """
    by_loss, fixed = allocation == "loss", pattern.fixed_level
    seen: dict[str, LayerStatistics] = {}
    if by_loss:
        seen = collect(
            model, analyse(model), calibration, frozenset({"moments"}), threads=options.threads, seed=options.seed,
            cache=options.cache, progress=counted(progress, "statistics"),
        )  # fmt: skip
    inputs = {name: _inputs(layer, seen.get(name)) for name, layer in layers.items()}
    source = LossSource(list(layers), model, pattern, inputs, calibration, options, progress) if by_loss else None
    curves: dict[str, np.ndarray] = {}
    losses: dict[str, float] = {}
    sizes: dict[str, int] = {}
    for name, layer in layers.items():
        weights = LayerWeights(matrices(layer), inputs[name])
        energies = weights.energies(with_inputs=by_loss)
        sizes[name] = weights.size
        if fixed is not None:
            own = None if source is None else source.single(name, weights, energies, fixed)
            losses[name] = lost_energy(weights, energies, pattern, fixed) if own is None else own
        elif source is not None:
            curves[name] = source.curve(name, weights, energies)
        else:
            curve = energy_curve(weights, energies, pattern)
            total = sum(float(energy.sum()) for energy in energies) or 1.0
            curves[name] = curve if allocation == "global" else left_over(curve, total)
    return LossCurves(curves, losses, sizes, inputs, None if source is None else source.supernet)


def _inputs(layer: Weighted, seen: LayerStatistics | None) -> list[np.ndarray] | None:
    """E[x²] of the columns of each matrix: that of the input channel, at every kernel position.

    None of a recurrent layer, whose columns are states as well.
    """
    if seen is None or isinstance(layer, RecurrentLayer):
        return None
    groups, _, positions, channels = layer.matrix().shape
    if seen.second_moment_diag.size != groups * channels:
        return None
    return [np.tile(own, positions) for own in seen.second_moment_diag.reshape(groups, channels)]
