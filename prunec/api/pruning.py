"""The middle of a compile: cut, prove the cut, compensate, judge."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from prunec.api.dump import Dump
from prunec.api.evidence import compensation_records
from prunec.api.opening import Opened, one_sample
from prunec.api.options import PlanOptions
from prunec.api.progress import Progress, counted
from prunec.backends.onnx.session import make_session, run
from prunec.diagnostics import Diagnostic
from prunec.frontend.calibration import Calibration
from prunec.passes.compensate import Options, compensate
from prunec.passes.mask_channels import mask_channels
from prunec.passes.slice_channels import slice_channels
from prunec.plan.plan import Plan
from prunec.verify.checker import Outcome
from prunec.verify.exactness import exactness_record, prove, prove_groups
from prunec.verify.inputs import Run
from prunec.verify.quality import quality_by_agreement, quality_by_metric
from prunec.verify.records import CompensationRecord, ExactnessRecord, QualityRecord
from prunec.verify.rewriting import check_rewriting
from prunec.verify.user_metric import Metric


@dataclass(frozen=True)
class Pruned:
    """The pruned model, and what was shown on the way."""

    model: ir.Model
    outcomes: tuple[Outcome, ...]
    exactness: ExactnessRecord
    compensation: tuple[CompensationRecord, ...] | None
    warnings: tuple[Diagnostic, ...]


def prune(
    opened: Opened,
    plan: Plan,
    calibration: Calibration,
    options: PlanOptions,
    *,
    compensates: bool,
    stages: Dump,
    progress: Progress,
) -> Pruned:
    """Cut what the plan says, prove it, refit the rest.

    Raises:
        GateError PC501, PC506: the cut or a rewrite is wrong; PrunecError PC32x: the data does not serve to refit.
    """
    dense, analysis, seed, threads = opened.canonical, opened.analysis, options.seed, options.threads
    alive = analysis.alive(plan.keeps())
    progress("checking the canonical model", 0, 0)
    spare = one_sample(calibration, dense)
    check_rewriting(opened.source.model, dense, seed=seed, threads=threads, spare=spare)
    progress("cutting", 0, 0)
    stages.save("canonical", dense)
    stages.save("masked", mask_channels(dense, analysis, alive))
    cut = slice_channels(dense, analysis, alive)
    stages.save("cut", cut)
    progress("proving the cut", 0, 0)
    outcomes = prove(dense, analysis, alive, cut_model=cut, seed=seed, threads=threads, spare=spare)
    groups = prove_groups(dense, analysis, alive, seed=seed, threads=threads, spare=spare)
    exactness = exactness_record(outcomes, analysis, alive, groups)
    method = options.chosen_recipe().compensation if compensates else "none"
    if method == "none":
        stages.save("model", cut)
        return Pruned(cut, tuple(outcomes), exactness, None, ())
    progress("compensating", 0, 0)
    refitted = compensate(
        dense,
        cut,
        analysis,
        alive,
        calibration,
        Options(method=method, seed=seed, threads=threads),
        counted(progress, "compensating"),
    )
    stages.save("model", refitted.model)
    records = compensation_records(refitted.records)
    return Pruned(refitted.model, tuple(outcomes), exactness, records, refitted.warnings)


def judge(
    opened: Opened, pruned: Pruned, calibration: Calibration, options: PlanOptions, metric: Metric | None
) -> QualityRecord | None:
    """Quality of the pruned model against the model as it was read; None where the data shows nothing.

    Raises:
        PrunecError PC351: the metric fails; GateError PC502: the pruned model answers NaN.
    """
    before = runner(opened.source.model, options.threads)
    after = runner(pruned.model, options.threads)
    if metric is not None:
        return quality_by_metric(metric, before, after)
    return quality_by_agreement(before, after, calibration.held_out(), data=calibration.source)


def runner(model: ir.Model, threads: int) -> Run:
    """Feeds → outputs, in ONNX Runtime."""
    session = make_session(model, threads=threads)
    return lambda feeds: run(session, feeds)
