"""Which share of each layer goes: the allocation that was asked for, on the layers that have the pattern."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from prunec.api.loss_curves import loss_curves
from prunec.api.options import PlanOptions
from prunec.api.progress import Progress
from prunec.diagnostics import PrunecError
from prunec.frontend.calibration import Calibration
from prunec.passes.compensate.recurrent_layer import RecurrentLayer
from prunec.passes.sparsify.embeddings import Embedding
from prunec.passes.sparsify.rewriting import Weighted
from prunec.passes.sparsify.views import constants, matrices, prunable_layers
from prunec.patterns import Pattern
from prunec.plan.layers import DENSE
from prunec.plan.levels import Allocation, LayerWeights, curve_levels, erdos_renyi, erk_levels, whole_levels
from prunec.plan.plan import LayerPlan

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


class Spread:
    """Levels of `layers` for any mean over all their weights. `sizes`: numbers of weights, by name.

    lamp, global and loss look at the weights, loss at the data as well, once for all means.
    """

    def __init__(
        self,
        layers: Mapping[str, Weighted],
        model: ir.Model,
        pattern: Pattern,
        allocation: Allocation,
        calibration: Calibration,
        options: PlanOptions,
        progress: Progress,
    ) -> None:
        self._allocation, self._fixed = allocation, pattern.fixed_level
        if allocation not in ("uniform", "erk"):
            self._curves = loss_curves(layers, model, pattern, allocation, calibration, options, progress)
            self.sizes = self._curves.sizes
            return
        self.sizes, self._raw = dict[str, int](), dict[str, float]()
        for name, layer in layers.items():
            weights = LayerWeights(matrices(layer))  # one at a time: all of them in float64 are twice the model
            rows = constants(layer)[0].shape[1] if isinstance(layer, RecurrentLayer) else None  # of all gates
            self.sizes[name], self._raw[name] = weights.size, erdos_renyi(weights, rows)

    def levels(self, mean: float) -> dict[str, float]:
        """By name, 0 to below 1."""
        if self._allocation == "uniform":
            return dict.fromkeys(self.sizes, mean)
        if self._allocation == "erk":
            return erk_levels(self._raw, self.sizes, mean)
        if self._fixed is None:
            return curve_levels(self._curves.curves, self.sizes, mean)
        return whole_levels(self._curves.losses, self.sizes, self._fixed, mean)


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

    Tables of embeddings take `level` itself, and say so.
    """
    own = prunable_layers(model)
    free = {plan.node: own[plan.node] for plan in layers if plan.pattern != DENSE}
    plain = {name: layer for name, layer in free.items() if not isinstance(layer, Embedding)}
    if allocation == "uniform" or not plain:
        return tuple(layers)
    found = Spread(plain, model, pattern, allocation, calibration, options, progress).levels(level)
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
