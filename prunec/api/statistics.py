"""What a criterion and a scope ask to be measured: a `ScoreContext`, and the errors of cuts."""

from __future__ import annotations

import onnx_ir as ir

from prunec.api.options import PlanOptions
from prunec.api.progress import Progress, counted
from prunec.criteria import Criterion, ScoreContext
from prunec.criteria.base import Needs
from prunec.frontend.calibration import Calibration
from prunec.graph import Analysis
from prunec.plan.curves import LEVELS
from prunec.statistics import collect
from prunec.statistics.cut_errors import CutErrors
from prunec.statistics.output_errors import sample_count


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
    if options.chosen_recipe().scope == "loss":
        needs |= frozenset[Needs]({"covariance"})
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


def cut_errors(
    model: ir.Model, analysis: Analysis, calibration: Calibration, options: PlanOptions, progress: Progress
) -> CutErrors | None:
    """What scope "loss" asks about cuts of one group; None for the other scopes."""
    if options.chosen_recipe().scope != "loss":
        return None
    progress("measuring cuts", 0, 0)
    samples = cut_samples(model, analysis, calibration)
    step = counted(progress, "measuring cuts")
    return CutErrors(model, analysis, calibration, samples, threads=options.threads, progress=step)


def cut_samples(model: ir.Model, analysis: Analysis, calibration: Calibration) -> int:
    """How many samples `CutErrors` asks about."""
    free = sum(group.pinned is None for group in analysis.groups)
    return sample_count(model, calibration, len(LEVELS) * free)
