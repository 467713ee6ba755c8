"""Which share of each layer goes: the allocation that was asked for, on the layers that have the pattern."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunec.api.options import PlanOptions
from prunec.api.progress import Progress, counted
from prunec.diagnostics import PrunecError
from prunec.frontend.calibration import Calibration
from prunec.graph import analyse
from prunec.passes.compensate.layers import Layer
from prunec.passes.sparsify.views import matrices, prunable_layers
from prunec.patterns import Pattern
from prunec.plan.layers import DENSE
from prunec.plan.levels import (
    MEASURED,
    SMALLEST,
    Allocation,
    LayerWeights,
    curve_levels,
    energy_curve,
    erk_levels,
    lost_energy,
    masks,
    scaled,
    whole_levels,
)
from prunec.plan.plan import LayerPlan
from prunec.statistics import LayerStatistics, collect
from prunec.statistics.output_errors import OutputErrors, sample_count

DIGITS = 1e6
"""Levels are rounded up to one over this."""
DEFAULT: Allocation = "uniform"


def chosen_allocation(options: PlanOptions, pattern: Pattern) -> Allocation:
    """The one that was given, or the default. A pattern that fixes its level is spread by loss where less is wanted.

    Raises:
        PrunecError PC208: such a pattern, and an allocation that spreads shares.
    """
    given: Allocation | None = options.allocation  # type: ignore[assignment]
    fixed = pattern.fixed_level
    if fixed is None:
        return given or DEFAULT
    if pattern.mean_level(options.sparsity) > fixed - 1e-9:
        return "uniform"
    if given in ("uniform", "erk"):
        message = f"{pattern.name} removes {fixed:g} of a layer or nothing, {given} would take other shares"
        raise PrunecError("PC208", message, where="--allocation", hint="loss, lamp or global choose whole layers")
    return given or "loss"


def allocate_levels(
    layers: Sequence[LayerPlan],
    model: ir.Model,
    pattern: Pattern,
    allocation: Allocation,
    level: float,
    calibration: Calibration,
    options: PlanOptions,
    progress: Progress,
) -> tuple[LayerPlan, ...]:
    """`layers` with levels of which the mean over all their weights is `level`; those that stay dense do so still.

    Only layers with plain weights (convolutions, products) differ: others take `level` itself, and say so.
    """
    own = prunable_layers(model)
    free = {plan.node: own[plan.node] for plan in layers if plan.pattern != DENSE}
    plain = {name: layer for name, layer in free.items() if isinstance(layer, Layer)}
    if allocation == "uniform" or not plain:
        return tuple(layers)
    if allocation == "erk":
        found = erk_levels({name: LayerWeights(matrices(layer)) for name, layer in plain.items()}, level)
    else:
        own_curves = loss_curves(plain, model, pattern, allocation, calibration, options, progress)
        fixed = pattern.fixed_level
        if fixed is None:
            found = curve_levels(own_curves.curves, own_curves.sizes, level)
        else:
            found = whole_levels(own_curves.losses, own_curves.sizes, fixed, level)
    return tuple(_planned(plan, found, allocation, plan.node in plain) for plan in layers)


def _planned(plan: LayerPlan, found: dict[str, float], allocation: str, is_plain: bool) -> LayerPlan:
    if plan.pattern == DENSE:
        return plan
    if not is_plain:
        return plan.model_copy(update={"why": f"{plan.why}, as much as of all: {allocation} knows no such layers"})
    level = math.ceil(found[plan.node] * DIGITS - 1e-3) / DIGITS
    if level <= 0:
        return plan.model_copy(update={"pattern": DENSE, "level": 0.0, "why": f"{allocation}: others can spare more"})
    return plan.model_copy(update={"level": level, "why": f"{plan.why}, level by {allocation}"})


@dataclass(frozen=True)
class Curves:
    """What each layer loses, by name: at every level of `plan.levels.grid`, or at the pattern's own (`losses`).

    `sizes`: numbers of weights.
    """

    curves: Mapping[str, np.ndarray]
    losses: Mapping[str, float]
    sizes: Mapping[str, int]


def loss_curves(
    layers: Mapping[str, Layer],
    model: ir.Model,
    pattern: Pattern,
    allocation: Allocation,
    calibration: Calibration,
    options: PlanOptions,
    progress: Progress,
) -> Curves:
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
    for name, layer in layers.items():
        weights = LayerWeights(matrices(layer), _inputs(layer, seen.get(name)))
        energies = weights.energies(with_inputs=by_loss)
        total = sum(float(energy.sum()) for energy in energies) or 1.0
        sizes[name] = weights.size
        measured = [_error(errors, model, layer, weights, energies, pattern, s) for s in shares] if errors else []
        if fixed is not None:
            losses[name] = measured[0] if errors else lost_energy(weights, energies, pattern, fixed)
            continue
        curve = energy_curve(weights, energies, pattern)
        if allocation != "global":
            curve = -np.log(np.maximum(1 - curve / total, SMALLEST))
        curves[name] = scaled(curve, shares, measured) if errors else curve
    return Curves(curves, losses, sizes)


def _inputs(layer: Layer, seen: LayerStatistics | None) -> list[np.ndarray] | None:
    """E[x²] of the columns of each matrix: that of the input channel, at every kernel position."""
    if seen is None:
        return None
    groups, _, positions, channels = layer.matrix().shape
    if seen.second_moment_diag.size != groups * channels:
        return None
    return [np.tile(own, positions) for own in seen.second_moment_diag.reshape(groups, channels)]


def _error(
    errors: OutputErrors,
    model: ir.Model,
    layer: Layer,
    weights: LayerWeights,
    energies: Sequence[np.ndarray],
    pattern: Pattern,
    level: float,
) -> float:
    """What the outputs lose with a mask on this layer alone."""
    other = model.clone()
    changed = prunable_layers(other)[layer.name]
    assert isinstance(changed, Layer)
    matrix = changed.matrix()
    kept = np.stack(masks(weights, energies, pattern, level)).reshape(matrix.shape)
    changed.write(other.graph, matrix * kept, changed.bias())
    return min(errors.of(other), 1e6)
