"""The pass: layer by layer on the pruned model's own inputs, against the dense model's outputs, each step gated.

1. Both models run to the next layer (`SequentialRunner`).
2. The layer's sliced weights are judged on held-out data; a layer that still sees what the dense one sees is left.
3. Candidates are fitted (`Fit`) and judged by running the layer (`Judge`); the best replaces the weights if it lowers
   the held-out error.
4. At the end the model's own outputs decide: if they did not come closer to the dense model's, the uncompensated
   model is returned, with a warning.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from prunec.cache import Cache
from prunec.diagnostics import Diagnostic
from prunec.graph import Analysis
from prunec.passes.compensate.channel_map import has_channel_map
from prunec.passes.compensate.find import Residual, Skipped, find_layers, find_residual
from prunec.passes.compensate.fit import Fit, not_finite
from prunec.passes.compensate.judge import Judge
from prunec.passes.compensate.layers import Layer
from prunec.passes.compensate.ledger import LOG, Ledger, first_link
from prunec.passes.compensate.options import Compensated, CompensationRecord, LayerSolver, Options, Progress
from prunec.passes.compensate.pairs import Kept, Pairs, has_known_shape
from prunec.passes.compensate.recurrent import recurrent_stop, refit_recurrent
from prunec.passes.compensate.recurrent_layer import RecurrentLayer
from prunec.passes.compensate.recurrent_sides import Sides
from prunec.passes.compensate.runner import SequentialRunner, Stop
from prunec.statistics.blas_threads import blas_threads
from prunec.statistics.collect import CalibrationData
from prunec.statistics.sweep import outputs
from prunec.working_memory import working_bytes

EXACT_BELOW = 1e-11
"""Relative squared error of a layer that has nothing to compensate: float32 rounding in another order."""


def compensate(
    dense: ir.Model,
    cut: ir.Model,
    analysis: Analysis,
    alive: np.ndarray,
    calibration: CalibrationData,
    options: Options | None = None,
    progress: Progress | None = None,
    solver: LayerSolver | None = None,
    cache: Cache | None = None,
) -> Compensated:
    """Refit the layers of `cut` to `dense`. Both are canonical and stay as they are; node names pair their layers.

    `solver` treats the layers that it takes itself, whatever `options.method` is. `cache` keeps what is finished.

    Raises:
        PrunecError PC330: activations are not finite; PC331: not enough samples; PC332: a system cannot be solved.
    """
    options = options or Options()
    model = cut.clone()
    if solver is not None:
        solver.start(cut)
    tables = [] if solver is None else solver.mask_tables(model, calibration, options)
    with blas_threads(options.threads):
        kept = Kept(analysis, alive)
        first = "" if cache is None else first_link(dense, model, kept, calibration, options)
        models = [model] if solver is None else [model, solver.baseline]
        with Ledger(cache, first, models, solver) as ledger:
            records, errors = _refit_all(dense, cut, model, kept, calibration, options, progress, solver, ledger)
        records = [*tables, *records]
    least = cut if solver is None else solver.baseline
    warnings: list[Diagnostic] = []
    if options.gate and not errors[1] < errors[0] and any(r.method not in ("none", "skipped") for r in records):
        warnings.append(
            Diagnostic(
                "PC333",
                f"compensation was dropped: the error of the outputs on held-out data went from {errors[0]:.3g} to "
                f"{errors[1]:.3g}",
                hint="give more calibration samples, or samples closer to the real data",
            )
        )
        return Compensated(least.clone(), tuple(records), tuple(warnings), errors[0], errors[0])
    return Compensated(model, tuple(records), tuple(warnings), errors[0], errors[1])


def _refit_all(
    dense: ir.Model,
    cut: ir.Model,
    model: ir.Model,
    kept: Kept,
    calibration: CalibrationData,
    options: Options,
    progress: Progress | None,
    solver: LayerSolver | None,
    ledger: Ledger,
) -> tuple[list[CompensationRecord], tuple[float, float]]:
    """Records in graph order, and the outputs' errors of `cut` (or the solver's baseline) and of the new `model`."""
    layers, skipped = find_layers(model)
    taken = {layer.name for layer in layers if solver is not None and solver.takes(layer.name)}
    if options.method == "none":
        layers, skipped = [layer for layer in layers if layer.name in taken], []
    sources = {node.name or "": node for node in dense.graph}
    order = {node.name or "": i for i, node in enumerate(model.graph)}
    residuals = [find_residual(layer, order) if options.residual else None for layer in layers]
    stops = [
        _stop(layer, residual, sources[layer.name], maps=layer.name not in taken)
        for layer, residual in zip(layers, residuals, strict=True)
    ]
    records = [_skipped(skip) for skip in skipped]
    known = list(_known(layers, ledger))
    records += known
    errors = ledger.known_errors() if len(known) == len(layers) else None
    if errors is not None:
        return sorted(records, key=lambda record: order[record.layer]), errors
    with SequentialRunner(
        dense,
        model,
        stops,
        calibration,
        threads=options.threads,
        ram_bytes=options.ram_bytes,
        folder=options.folder,
    ) as runner:
        for number, (layer, residual) in enumerate(zip(layers, residuals, strict=True)):
            if progress is not None:
                progress(number, len(layers), layer.name)
            runner.advance(number)
            if number < len(known):
                continue
            source, before = sources[layer.name], ledger.constants()
            if isinstance(layer, RecurrentLayer):
                sides = Sides((dense, model), (RecurrentLayer(source), layer), runner, kept, options.threads)
                refit_sides = refit_recurrent if solver is None or layer.name not in taken else solver.solve_recurrent
                record = refit_sides(model, sides, options, number)
            else:
                pairs = Pairs(runner, layer, source, residual, kept)
                refit = _refit if solver is None or layer.name not in taken else solver.solve
                record = refit(model, pairs, options, number)
            records.append(record)
            ledger.keep(layer.name, before, record)
        if progress is not None:
            progress(len(layers), len(layers), "outputs")
        runner.finish()
        least = cut if solver is None else solver.baseline
        errors = _output_errors(runner, least, calibration, options.threads)
        ledger.keep_errors(errors)
    return sorted(records, key=lambda record: order[record.layer]), errors


def _known(layers: Sequence[Layer | RecurrentLayer], ledger: Ledger) -> Iterator[CompensationRecord]:
    """Records of the layers from the first one on that were finished before; they are in the model again."""
    for number, layer in enumerate(layers):
        record = ledger.known(layer.name)
        if record is None:
            if number:
                LOG.info("%d of %d layers were solved before and come from the cache", number, len(layers))
            return
        yield record
    if layers and ledger.cache is not None:
        LOG.info("all %d layers were solved before", len(layers))


def _stop(layer: Layer | RecurrentLayer, residual: Residual | None, dense: ir.Node, *, maps: bool) -> Stop:
    """`maps`: channel maps compete, which read the dense input."""
    if isinstance(layer, RecurrentLayer):
        return recurrent_stop(layer, dense)
    operand = frozenset() if residual is None else frozenset({residual.operand})
    data = dense.inputs[layer.data_index]
    assert data is not None
    read = {dense.outputs[0].name or ""}
    if not has_known_shape(dense, layer.data_index) or (maps and has_channel_map(layer)):
        read.add(data.name or "")
    return Stop(layer.name, dense=operand | read, pruned=operand | {layer.data.name or ""})


def _refit(model: ir.Model, pairs: Pairs, options: Options, number: int) -> CompensationRecord:
    layer = pairs.layer
    refusal = pairs.refusal()
    if refusal is not None:
        return _skipped(Skipped(layer.name, refusal))
    fit, judge = Fit(pairs, options, number), Judge(model, pairs, options.threads)
    none = fit.none()
    (error,) = judge.errors([none])
    if error == math.inf:
        raise not_finite(layer)
    if error <= EXACT_BELOW:
        return CompensationRecord(layer.name, "none", 0.0, 0, error, error, notes=("its input has not changed",))
    best, best_error = judge.best((none, error), fit.first())
    best, best_error = judge.best((best, best_error), fit.second(best))
    if best is not none:
        layer.write(model.graph, best.matrix, best.bias)
    notes = best.notes + (() if layer.can_shift else ("there is no bias to correct",))
    return CompensationRecord(
        layer.name, best.method, best.damping, fit.rows, error, best_error, pairs.residual is not None, notes
    )


def _skipped(skip: Skipped) -> CompensationRecord:
    return CompensationRecord(skip.node, "skipped", 0.0, 0, math.nan, math.nan, notes=(skip.reason,))


def _output_errors(
    runner: SequentialRunner, cut: ir.Model, calibration: CalibrationData, threads: int
) -> tuple[float, float]:
    """Of `cut` and of the refitted model: mean over the outputs of ‖y_dense − y‖²/‖y_dense‖² on held-out data.

    Whole numbers count as they are. An output of another shape has an infinite error.
    """
    memory = working_bytes(cut)
    answers = outputs(cut, calibration.held_out, threads=threads, ram_bytes=memory)
    sums = np.zeros((2, len(cut.graph.outputs)))
    totals = np.zeros(len(cut.graph.outputs))
    for batch, before_fit in zip(runner.held_out, answers, strict=True):
        wanted = runner.outputs("dense", batch)
        totals += [np.square(y, dtype=np.float64).sum() for y in wanted]
        for own, found in zip(sums, (before_fit.values(), runner.outputs("pruned", batch)), strict=True):
            own += [_distance(y, z) for y, z in zip(wanted, found, strict=True)]
    errors = (sums / np.where(totals > 0, totals, 1.0)).mean(axis=1)
    before, after = (float(error) if math.isfinite(error) else math.inf for error in errors)
    return before, after


def _distance(y: np.ndarray, z: np.ndarray) -> float:
    return float(np.square(y.astype(np.float64) - z).sum()) if y.shape == z.shape else math.inf
