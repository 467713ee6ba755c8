"""Where quantisers go and on which grids, for a model as it is or with its channels equalised."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunec.diagnostics import PrunecError
from prunec.passes.quantise.equalise import ALPHAS, Coupled, coupled, equalised, factors
from prunec.passes.quantise.observe import channel_peaks, observe
from prunec.passes.quantise.placement import Placement, place
from prunec.passes.quantise.ranges import Grid, choose_grid, min_max
from prunec.passes.quantise.write import Steps, write
from prunec.statistics.collect import CalibrationData

Progress = Callable[[str, int, int], None]
Scales = list[tuple[Coupled, np.ndarray]]
WORTH = 0.98
"""What the outputs' error has to fall to for channels to be scaled."""


@dataclass(frozen=True)
class Prepared:
    """`grids` and `widest` (on which nothing clips) by value name."""

    model: ir.Model
    placement: Placement
    grids: dict[str, Grid]
    widest: dict[str, Grid]

    def written(self, bits: int, steps: Steps | None = None) -> ir.Model:
        return write(self.model, self.placement, self.grids, bits, steps)


def prepare(
    model: ir.Model,
    *,
    calibration: CalibrationData,
    exclude: Collection[str],
    seed: int,
    threads: int,
    progress: Progress,
    given: Mapping[str, Grid] | None = None,
) -> Prepared:
    """Grids are found on the data that fits and chosen on the held-out data, but those that are `given` by value name.

    Raises:
        PrunecError PC480: a value is infinite; PC481: no layer can be quantised.
    """
    placement = place(model, exclude)
    if not placement.layers:
        message = "no layer has constant float32 weights that 8 bits could hold"
        raise PrunecError("PC481", message, where="--precision", hint="leave --precision out")
    progress("observing values", 0, 2)
    known = {name: grid for name, grid in (given or {}).items() if name in placement.values}
    names = [name for name in placement.values if name not in known]
    seen = observe(model, names, calibration.fit, seed=seed, threads=threads)
    progress("observing values", 1, 2)
    other = observe(model, names, calibration.held_out, seed=seed, threads=threads)
    progress("observing values", 2, 2)
    grids = _with_shared(known | {name: choose_grid(seen[name], other[name]) for name in names}, placement)
    widest = _with_shared(known | {name: min_max(seen[name]) for name in names}, placement)
    return Prepared(model, placement, grids, widest)


def evenly(
    found: Prepared,
    look: Callable[[ir.Model], Prepared],
    judged: Callable[[Prepared], float],
    calibration: CalibrationData,
    threads: int,
    progress: Progress,
) -> tuple[Prepared, Scales]:
    """`found`, or what `look` finds once channels are equalised, where `judged` says that it errs less."""
    names = {name for own in coupled(found.model) for name in own.values}
    used = [name for name in (*found.placement.values, *found.placement.shared) if name in names]
    if not used:
        return found, []
    progress("equalising channels", 0, len(ALPHAS))
    peaks = channel_peaks(found.model, used, calibration.fit, threads=threads)
    best, least, scales = found, WORTH * judged(found), Scales()
    for alpha in ALPHAS:
        own = factors(found.model, peaks, alpha)
        if not own:
            continue
        other = look(equalised(found.model, own))
        error = judged(other)
        if error < least:
            best, least, scales = other, error, own
    return best, scales


def _with_shared(own: dict[str, Grid], placement: Placement) -> dict[str, Grid]:
    return own | {name: own[root] for name, root in placement.shared.items()}
