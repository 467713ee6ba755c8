"""The statistics that a criterion asks for, in one `ScoreContext`."""

from __future__ import annotations

import onnx_ir as ir

from prunec.api.options import PlanOptions
from prunec.api.progress import Progress, counted
from prunec.criteria import Criterion, ScoreContext
from prunec.frontend.calibration import Calibration
from prunec.graph import Analysis
from prunec.statistics import collect


def score_context(
    model: ir.Model,
    analysis: Analysis,
    calibration: Calibration,
    criterion: Criterion,
    options: PlanOptions,
    progress: Progress,
) -> ScoreContext:
    """Moments and covariances from ONNX Runtime; gradients from torch, only where they are asked for (PC030)."""
    needs = criterion.needs
    step = counted(progress, "statistics")
    gradients = None
    if needs & {"gradients", "relevance"}:
        from prunec.statistics.gradients import collect_gradients

        gradients = collect_gradients(
            model, analysis, calibration, relevance="relevance" in needs, threads=options.threads, seed=options.seed,
            progress=step,
        )  # fmt: skip
    moments = needs - {"gradients", "relevance"}
    statistics = collect(
        model, analysis, calibration, moments, threads=options.threads, seed=options.seed, cache=options.cache,
        progress=step,
    )  # fmt: skip
    return ScoreContext(model, analysis, statistics, options.seed, gradients=gradients)
