"""A float model in, a quantised one out: every choice is judged on data that it was not made on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial

import onnx_ir as ir

from prunec.diagnostics import PrunecError
from prunec.passes.canonicalise.opset import with_opset
from prunec.passes.quantise.bias import corrected, with_shifts
from prunec.passes.quantise.observe import observe
from prunec.passes.quantise.placement import Placement, place, quantisable
from prunec.passes.quantise.ranges import Grid, choose_grid, min_max
from prunec.passes.quantise.write import write
from prunec.statistics.collect import CalibrationData
from prunec.statistics.output_errors import OutputErrors, first_batches

Progress = Callable[[str, int, int], None]
PER_CHANNEL = 13
"""The first opset with a scale for each channel."""
MOST = 0.03
"""Error of the outputs that needs no layer in float."""
WORST = 5
"""Layers that go back to float at most, those with the largest errors by themselves first."""
GAIN = 0.5
"""What the outputs' error must fall to for that: layers in float, and the conversions around them, cost time."""
NEAR = 1.1
"""Fewer layers are taken where they come within this factor of the least error."""
SAMPLES = 64
"""That outputs are judged on, and means taken from: for each of them all layers run many times."""


@dataclass(frozen=True)
class Quantised:
    """`error`: of the outputs on held-out data, ‖quantised − float‖ / ‖float‖; `plain`: with min-max ranges alone.

    `left_float`: layers that stay, with the reason; `rules`: how many ranges each rule found.
    """

    model: ir.Model
    layers: tuple[str, ...]
    left_float: Mapping[str, str]
    rules: Mapping[str, int]
    values: int
    has_corrected_biases: bool
    error: float
    plain: float


def quantise(
    model: ir.Model,
    calibration: CalibrationData,
    *,
    exclude: Collection[str] = (),
    bits: int = 8,
    seed: int = 0,
    threads: int = 1,
    progress: Progress = lambda what, done, of: None,
) -> Quantised:
    """Static int8 of the layers of `model`: int8 weights per output channel, uint8 activations per tensor.

    The data that fits decides, the held-out data judges: ranges each by itself; corrected biases and layers that go
    back to float by the error of the outputs. `exclude`: node names; `bits`: of weights, 8 or 7 (`weights.LEVELS`).

    Raises:
        PrunecError PC480: a value is infinite; PC481: no layer can be quantised; PC482: the opset is too old.
    """
    model = _raised(model)
    placement = place(model, exclude)
    if not placement.layers:
        message = "no layer has constant float32 weights that 8 bits could hold"
        raise PrunecError("PC481", message, where="--precision", hint="leave --precision out")
    progress("observing values", 0, 2)
    seen = observe(model, placement.values, calibration.fit, seed=seed, threads=threads)
    progress("observing values", 1, 2)
    other = observe(model, placement.values, calibration.held_out, seed=seed, threads=threads)
    progress("observing values", 2, 2)
    grids = _with_shared({name: choose_grid(seen[name], other[name]) for name in placement.values}, placement)
    widest = _with_shared({name: min_max(seen[name]) for name in placement.values}, placement)
    errors = OutputErrors(model, calibration, SAMPLES, threads=threads)
    put = partial(write, bits=bits)

    def judged(other: ir.Model) -> float:
        return math.sqrt(errors.of(other))

    plain = judged(put(model, placement, widest))
    left: dict[str, str] = dict.fromkeys(exclude, "excluded")
    left, error = _float_again(model, placement, lambda own: judged(put(model, own, grids)), left, progress)
    placement = place(model, left)

    progress("correcting biases", 0, 0)
    best, is_corrected, layers = model, False, list(placement.layers.values())
    shifts = corrected(
        model,
        layers,
        lambda known: put(with_shifts(model, known), placement, grids),
        first_batches(calibration.fit(), SAMPLES),
        threads=threads,
    )
    shifted = with_shifts(model, shifts)
    if (found := judged(put(shifted, placement, grids))) < error:
        best, error, is_corrected = shifted, found, bool(shifts)
    chosen = put(best, placement, grids)
    rules = Counter(grids[name].rule for name in placement.values)
    return Quantised(
        chosen, tuple(placement.layers), left, dict(rules), len(placement.values), is_corrected, error, plain
    )


def _with_shared(own: dict[str, Grid], placement: Placement) -> dict[str, Grid]:
    return own | {name: own[root] for name, root in placement.shared.items()}


def _float_again(
    model: ir.Model,
    placement: Placement,
    judged: Callable[[Placement], float],
    left: dict[str, str],
    progress: Progress,
) -> tuple[dict[str, str], float]:
    """Layers whose return to float, together, halves an error above `MOST`: the worst of them."""
    error = judged(placement)
    if error <= MOST:
        return left, error
    alone: dict[str, float] = {}
    everything = {layer.name for layer in quantisable(model)}
    for number, name in enumerate(placement.layers):
        progress("looking for sensitive layers", number, len(placement.layers))
        alone[name] = judged(place(model, everything - {name}))
    progress("looking for sensitive layers", len(placement.layers), len(placement.layers))
    worst = sorted(alone, key=lambda own: -alone[own])[: min(WORST, len(alone) - 1)]
    found = [judged(place(model, {*left, *worst[:count]})) for count in range(1, len(worst) + 1)]
    if not found or min(found) > GAIN * error:
        return left, error
    count = next(number for number, own in enumerate(found, 1) if own <= NEAR * min(found))
    why = f"with 8 bits the outputs' error was {error:.2g}, without {found[count - 1]:.2g}"
    return {**left, **dict.fromkeys(worst[:count], why)}, found[count - 1]


def _raised(model: ir.Model) -> ir.Model:
    raised = with_opset(model, PER_CHANNEL)
    if raised is None:
        message = f"int8 needs opset {PER_CHANNEL}, and the model's cannot be raised"
        raise PrunecError("PC482", message, where="--precision", hint="export the model with a newer opset")
    return raised
