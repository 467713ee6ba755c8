"""Refit what all stages left to the dense model: what blocks gave on average, norms, then the layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from prunec.api.stages import Stage, tidied, whole
from prunec.cache import Cache
from prunec.passes.centre_blocks import centre_blocks
from prunec.passes.compensate import Compensated, CompensationRecord, LayerSolver, Options, compensate
from prunec.passes.compensate.pairs import Kept
from prunec.passes.fold_means import fold_means
from prunec.passes.rescale_norms import rescale_norms
from prunec.statistics.collect import CalibrationData


def refit(
    stages: Sequence[Stage],
    calibration: CalibrationData,
    options: Options,
    progress: Callable[[int, int, str], None] | None = None,
    solver: LayerSolver | None = None,
    cache: Cache | None = None,
) -> Compensated:
    """The last stage's model, compensated and tidied up.

    `solver` takes some layers over; `cache` keeps those that are finished.

    Raises:
        PrunecError PC330 to PC332: as `passes.compensate`.
    """
    first, last = stages[0], stages[-1]
    blocks = [block for stage in stages for block in stage.blocks]
    if len(stages) == 1 and not blocks and not first.analysis.statistics:
        own = (first.before, first.after, first.analysis, first.alive)
        return compensate(*own, calibration, options, progress, solver, cache)
    analysis, alive = whole(stages)
    kept = Kept(analysis, alive)
    cut, records = last.after, list[CompensationRecord]()
    refits = options.method != "none"
    if blocks and refits:
        cut, found = centre_blocks(first.before, cut, kept, blocks, calibration, threads=options.threads)
        records += found
    if refits and any(stage.analysis.statistics for stage in stages):
        cut, found = rescale_norms(first.before, cut, kept, calibration, threads=options.threads)
        records += found
    refitted = compensate(first.before, cut, analysis, alive, calibration, options, progress, solver, cache)
    model = tidied(refitted.model)
    if refits:
        fold_means(model, blocks)
    return replace(refitted, model=model, records=(*records, *refitted.records))
