"""What 8 bits cost each layer before anything is pruned: what plans weigh data types by.

    loss_l = Σ‖y − y_l‖²/Σ‖y‖²,   y_l: outputs with layer l alone in 8 bits, on held-out data

on the ranges, and with the channels equalised, that `quantise` finds for the whole model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial

import onnx_ir as ir

from prunec.passes.quantise.driver import SAMPLES, finite_error, raised
from prunec.passes.quantise.equalise import equalised
from prunec.passes.quantise.placement import place
from prunec.passes.quantise.prepare import Prepared, Scales, evenly, prepare
from prunec.passes.quantise.ranges import Grid
from prunec.passes.quantise.sensitive import errors_alone, float_again
from prunec.passes.quantise.write import write
from prunec.statistics.collect import CalibrationData
from prunec.statistics.output_errors import OutputErrors

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class LayerLosses:
    """`alone`: by node name. `hurt`: layers that go back to float where all others are in 8 bits, with the reason."""

    alone: Mapping[str, float]
    hurt: Mapping[str, str]
    found: Prepared
    scales: Scales
    bits: int

    def written(self, model: ir.Model, in_float: Collection[str]) -> ir.Model:
        """The dense model with other weights, in 8 bits but for the layers `in_float`; nothing is refitted."""
        model = raised(model)
        model = equalised(model, self.scales) if self.scales else model
        return write(model, place(model, in_float), self.found.grids, self.bits)


def layer_losses(
    model: ir.Model,
    calibration: CalibrationData,
    *,
    exclude: Collection[str] = (),
    bits: int = 8,
    seed: int = 0,
    threads: int = 1,
    given: Mapping[str, Grid] | None = None,
    progress: Progress = lambda what, done, of: None,
) -> LayerLosses:
    """Of a dense float model; options as for `quantise`, which has their reasons.

    Raises:
        PrunecError PC480: a value or an output is infinite; PC481: no layer can be quantised; PC482: the opset is old.
    """
    model = raised(model)
    errors = OutputErrors(model, calibration, SAMPLES, threads=threads)
    look = partial(
        prepare, calibration=calibration, exclude=exclude, seed=seed, threads=threads, progress=progress, given=given
    )

    def judged(own: Prepared) -> float:
        return math.sqrt(errors.of(own.written(bits)))

    found, scales = look(model), Scales()
    finite_error(math.sqrt(errors.of(write(model, found.placement, found.widest, bits))))
    if not given:
        found, scales = evenly(found, look, judged, calibration, threads, progress)
    alone = errors_alone(found, judged, progress)
    _, hurt, _ = float_again(found, judged, exclude, progress, alone)
    return LayerLosses({name: error**2 for name, error in alone.items()}, hurt, found, scales, bits)
