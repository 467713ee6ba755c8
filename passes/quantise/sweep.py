"""Weights rounded in one walk through the model: `Rounder` under the sequential driver of `passes/compensate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from prunec.cache import Cache
from prunec.graph import Analysis
from prunec.passes.compensate import Options, compensate
from prunec.passes.compensate.find import find_layers
from prunec.passes.compensate.layers import Layer
from prunec.passes.compensate.options import Progress
from prunec.passes.quantise.equalise import equalised
from prunec.passes.quantise.prepare import Prepared, Scales
from prunec.passes.quantise.rounder import RoundedLayer, Rounder
from prunec.passes.quantise.roundings import DEFAULT, TRIED, Rounding
from prunec.passes.quantise.weights import LEVELS
from prunec.passes.quantise.write import with_activations
from prunec.passes.sparsify import LayerPattern
from prunec.statistics.collect import CalibrationData


@dataclass(frozen=True)
class Target:
    """What the layers should give: those of `dense`, of which `analysis` and `alive` say what is left.

    `patterns` by node name, of layers whose zeros may be found anew; `cut` has their dense weights.
    """

    dense: ir.Model
    analysis: Analysis
    alive: np.ndarray
    patterns: Mapping[str, LayerPattern] = field(default_factory=dict)
    cut: ir.Model | None = None

    @classmethod
    def of(cls, model: ir.Model) -> Target:
        """The model itself."""
        return cls(model, Analysis((), 0, {}, {}, (), ()), np.ones(0, bool))

    @property
    def is_whole(self) -> bool:
        """Whether no channel is gone."""
        return bool(self.alive.all())

    def scaled(self, model: ir.Model, scales: Scales) -> Target:
        """For `model`, whose channels were scaled: they have to be here as well, or it is its own target."""
        if not scales:
            return self
        if not self.is_whole:
            return Target.of(model)
        cut = None if self.cut is None else equalised(self.cut, scales)
        return replace(self, dense=equalised(self.dense, scales), cut=cut)


@dataclass(frozen=True)
class Swept:
    """`model` with weights that are multiples of each layer's steps, and without any quantiser."""

    model: ir.Model
    layers: Mapping[str, RoundedLayer]

    def steps(self) -> dict[str, tuple[float, ...]]:
        return {name: layer.steps for name, layer in self.layers.items()}


def sweep(
    quantised: Prepared,
    calibration: CalibrationData,
    target: Target,
    *,
    bits: int,
    seed: int,
    threads: int,
    rounding: Rounding = DEFAULT,
    progress: Progress | None = None,
    cache: Cache | None = None,
) -> Swept:
    """Memory is bounded by the largest layer: activations that wait are on disk (see `SequentialRunner`)."""
    placement, grids = quantised.placement, quantised.grids
    walked = with_activations(quantised.model, placement, grids)
    steps = {name: grids[str(layer.data.name)].scale for name, layer in placement.layers.items()}
    found = () if target.cut is None else find_layers(target.cut)[0]
    dense = {layer.name: layer for layer in found if isinstance(layer, Layer)}
    rounder = Rounder(quantised.model, placement.layers, steps, LEVELS[bits], target.patterns, dense, TRIED[rounding])
    options = Options(method="none", residual=False, gate=False, seed=seed, threads=threads)
    compensate(target.dense, walked, target.analysis, target.alive, calibration, options, progress, rounder, cache)
    return Swept(rounder.baseline, rounder.results)
