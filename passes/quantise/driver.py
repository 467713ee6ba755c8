"""A float model in, a quantised one out: every choice is judged on data that it was not made on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial

import onnx_ir as ir

from prunec.cache import Cache
from prunec.diagnostics import PrunecError
from prunec.passes.canonicalise.opset import with_opset
from prunec.passes.quantise.bias import Shifts, corrected, with_shifts
from prunec.passes.quantise.prepare import Prepared, Scales, evenly, prepare
from prunec.passes.quantise.ranges import Grid
from prunec.passes.quantise.roundings import DEFAULT, TRIED, Rounding, walks
from prunec.passes.quantise.sensitive import float_again
from prunec.passes.quantise.sweep import Swept, Target, sweep
from prunec.passes.quantise.write import write
from prunec.statistics.collect import CalibrationData
from prunec.statistics.output_errors import OutputErrors, first_batches

Progress = Callable[[str, int, int], None]
PER_CHANNEL = 13
"""The first opset with a scale for each channel."""
SAMPLES = 64
"""That outputs are judged on, and means taken from: for each of them all layers run many times."""


@dataclass(frozen=True)
class Quantised:
    """`error`: of the outputs on held-out data, ‖quantised − float‖ / ‖float‖; `plain`: with min-max ranges alone.

    `left_float`: layers that stay, with the reason; `rules`: how many ranges each rule found. `rounding`: how many
    layers' weights each method rounded. `error_nearest`: of the outputs against the target's, with weights at their
    nearest values and corrected biases; `error_swept`: with weights that were rounded on what the quantised layers
    before them give. `equalised`: channels whose scale was changed before.
    """

    model: ir.Model
    layers: tuple[str, ...]
    left_float: Mapping[str, str]
    rules: Mapping[str, int]
    values: int
    has_corrected_biases: bool
    error: float
    plain: float
    rounding: Mapping[str, int]
    error_nearest: float
    error_swept: float | None
    equalised: int


def quantise(
    model: ir.Model,
    calibration: CalibrationData,
    *,
    exclude: Collection[str] = (),
    bits: int = 8,
    seed: int = 0,
    threads: int = 1,
    target: Target | None = None,
    rounding: Rounding = DEFAULT,
    given: Mapping[str, Grid] | None = None,
    planned: Mapping[str, str] | None = None,
    cache: Cache | None = None,
    progress: Progress = lambda what, done, of: None,
) -> Quantised:
    """Static int8 of the layers of `model`: int8 weights per output channel, uint8 activations per tensor.

    The data that fits decides, the held-out data judges: ranges each by itself; corrected biases and layers that go
    back to float by the error of the outputs. `exclude`: node names; `bits`: of weights, 8 or 7 (`weights.LEVELS`).
    Weights are rounded to their nearest values and in walks towards `target` (the model itself), one of which may find
    zeros anew for the layers that have a pattern there; what gives outputs closer to the target's stays. `rounding`:
    what is tried (`roundings`). `given`: grids of values that have one already, by name; then no channel is scaled.
    `planned`: layers that a plan leaves in float, with the reason; no others are looked for then.

    Raises:
        PrunecError PC480: a value or an output is infinite; PC481: no layer can be quantised; PC482: the opset is old.
    """
    model = raised(model)
    errors = OutputErrors(model, calibration, SAMPLES, threads=threads)

    def judged(other: ir.Model) -> float:
        return math.sqrt(errors.of(other))

    def own_error(own: Prepared) -> float:
        return judged(own.written(bits))

    look = partial(
        prepare, calibration=calibration, exclude={*exclude, *(planned or ())}, seed=seed, threads=threads,
        progress=progress, given=given,
    )  # fmt: skip
    found = look(model)
    plain = finite_error(judged(write(model, found.placement, found.widest, bits)))
    scales = Scales()
    if not given:
        found, scales = evenly(found, look, own_error, calibration, threads, progress)
    if planned is None:
        found, left, error = float_again(found, own_error, exclude, progress)
    else:
        left, error = {**dict.fromkeys(exclude, "excluded"), **planned}, own_error(found)

    progress("correcting biases", 0, 0)
    chosen, is_corrected = found.written(bits), False
    shifted, has_shifts = _with_biases(found, calibration, bits, threads)
    if (lower := judged(shifted)) < error:
        chosen, error, is_corrected = shifted, lower, has_shifts

    against = errors if target is None else OutputErrors(target.dense, calibration, SAMPLES, threads=threads)
    error_nearest, error_swept = math.sqrt(against.of(chosen)), None
    methods = Counter({"nearest": len(found.placement.layers)})
    if TRIED[rounding]:
        how = partial(
            sweep, calibration=calibration, bits=bits, seed=seed, threads=threads, cache=cache,
            progress=lambda done, of, name: progress("rounding weights", done, of),
        )  # fmt: skip
        wanted = Target.of(found.model) if target is None else target.scaled(found.model, scales)
        tried = [_walked(found, wanted, way, look, how, bits) for way in walks(rounding, wanted.patterns)]
        own = [math.sqrt(against.of(other.model)) for other in tried]
        error_swept = min(own)
        if error_swept < error_nearest:
            best = tried[own.index(error_swept)]
            found, chosen, error, is_corrected, methods = best.found, best.model, judged(best.model), True, best.methods
    return Quantised(
        model=chosen,
        layers=tuple(found.placement.layers),
        left_float=left,
        rules=dict(Counter(found.grids[name].rule for name in found.placement.values)),
        values=len(found.placement.values),
        has_corrected_biases=is_corrected,
        error=error,
        plain=plain,
        rounding=dict(methods),
        error_nearest=error_nearest,
        error_swept=error_swept,
        equalised=sum(int((scale != 1).sum()) for _, scale in scales),
    )


@dataclass(frozen=True)
class _Walked:
    """`found` with the grids of the walk, the model that came of it, how many layers each method rounded."""

    found: Prepared
    model: ir.Model
    methods: Counter[str]


def _walked(
    found: Prepared, wanted: Target, way: Rounding, look: Callable[[ir.Model], Prepared], how: Callable[..., Swept],
    bits: int,
) -> _Walked:  # fmt: skip
    """Weights rounded through all layers by `way`, towards `wanted`; zeros are found anew where it says so."""
    if "joint" not in TRIED[way]:
        wanted = replace(wanted, patterns={})
    elif wanted.patterns and wanted.is_whole:  # values will be closer to the dense model's than they are now
        found = replace(found, grids={**found.grids, **look(wanted.dense).grids})
    swept = how(found, target=wanted, rounding=way)
    model = replace(found, model=swept.model).written(bits, swept.steps())
    return _Walked(found, model, Counter(layer.method for layer in swept.layers.values()))


def finite_error(error: float) -> float:
    """`error` itself. PrunecError PC480 where an output is infinite."""
    if not math.isfinite(error):
        message, hint = "the outputs are infinite or NaN on the calibration data", "give real inputs: --calib"
        raise PrunecError("PC480", message, where="--precision", hint=hint)
    return error


def _with_biases(found: Prepared, calibration: CalibrationData, bits: int, threads: int) -> tuple[ir.Model, bool]:
    """In 8 bits with corrected biases, and whether there was any to correct."""

    def shifted(known: Shifts) -> ir.Model:
        return replace(found, model=with_shifts(found.model, known)).written(bits)

    layers, batches = list(found.placement.layers.values()), first_batches(calibration.fit(), SAMPLES)
    shifts = corrected(found.model, layers, shifted, batches, threads=threads)
    return shifted(shifts), bool(shifts)


def raised(model: ir.Model) -> ir.Model:
    """The model with an opset that has a scale for each channel. Raises PrunecError PC482."""
    found = with_opset(model, PER_CHANNEL)
    if found is None:
        message = f"int8 needs opset {PER_CHANNEL}, and the model's cannot be raised"
        raise PrunecError("PC482", message, where="--precision", hint="export the model with a newer opset")
    return found
