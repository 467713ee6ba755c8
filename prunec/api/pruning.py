"""The middle of a compile: cut, prove the cut, compensate, recover, judge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunec.api.dump import Dump
from prunec.api.evidence import compensation_records
from prunec.api.opening import Opened, one_sample
from prunec.api.options import PlanOptions
from prunec.api.patterning import patterns_record, planned_layers, sparsifier
from prunec.api.permuting import proved
from prunec.api.progress import Progress, counted, silent
from prunec.api.recovering import (
    JudgeTraining,
    Recovery,
    check_recovery,
    recovered,
    unless_lower,
    warnings_of,
    with_runs,
)
from prunec.api.refitting import refit
from prunec.api.rounds import Rounds
from prunec.api.stage_proofs import prove_stages
from prunec.api.stages import Stage, stages_of, tidied, whole
from prunec.array_store import ArrayStore
from prunec.backends.onnx.session import make_session, run
from prunec.diagnostics import Diagnostic
from prunec.frontend.calibration import Calibration
from prunec.passes.compensate import Options
from prunec.passes.quantise import Target
from prunec.passes.sparsify import LayerPattern
from prunec.plan.plan import Plan
from prunec.plan.recovery import NO_STEPS
from prunec.plan.structures import DEFAULT_STRUCTURES
from prunec.statistics.sweep import outputs
from prunec.verify.checker import Outcome
from prunec.verify.inputs import Run
from prunec.verify.margins import Remembered
from prunec.verify.quality import quality_by_agreement, quality_by_metric
from prunec.verify.records import (
    CompensationRecord,
    ExactnessRecord,
    PatternsRecord,
    QualityRecord,
    QuantisationRecord,
    TrainingMetric,
)
from prunec.verify.rewriting import check_rewriting
from prunec.verify.user_metric import Metric, evaluate
from prunec.working_memory import working_bytes


@dataclass(frozen=True)
class Pruned:
    """The pruned model, and what was shown on the way.

    `plan` says what was done, training included. `target`: what the model's layers should give. `quantised`: the same
    in 8 bits, where that is shipped.
    """

    plan: Plan
    model: ir.Model
    outcomes: tuple[Outcome, ...]
    exactness: ExactnessRecord
    compensation: tuple[CompensationRecord, ...] | None
    warnings: tuple[Diagnostic, ...]
    patterns: PatternsRecord | None = None
    recovery: Recovery | None = None
    target: Target | None = None
    quantised: ir.Model | None = None
    quantisation: QuantisationRecord | None = None

    @property
    def shipped(self) -> ir.Model:
        """What goes into the package and is judged."""
        return self.model if self.quantised is None else self.quantised


def prune(
    opened: Opened,
    plan: Plan,
    calibration: Calibration,
    options: PlanOptions,
    *,
    stages: Dump,
    progress: Progress,
    own: Judged | None = None,
) -> Pruned:
    """Cut what the plan says, prove it, refit the rest, train it where the plan says so.

    Where there is a metric (`own`), training that lowers it is undone, and the plan has none of it then, unless a plan
    file has decided on it already.

    Raises:
        GateError PC501, PC506, PC523: the cut, a rewrite or a pattern is wrong; PrunecError PC32x: the data does not
        serve to refit; PC030, PC040, PC34x: the model cannot be trained.
    """
    seed, threads = options.seed, options.threads
    if plan.recovery is not None:
        plan = plan.model_copy(update={"recovery": check_recovery(opened.canonical, plan.recovery)})
    progress("checking the canonical model", 0, 0)
    spare = one_sample(calibration, opened.canonical)
    steps = stages_of(opened, plan)
    check_rewriting(opened.unrounded, steps[0].before, seed=seed, threads=threads, spare=spare)
    rounds: Rounds | None = None
    recovery: Recovery | None
    if plan.recovery is not None and plan.recovery.steps > 1:
        rounds = Rounds(opened, plan, calibration, options, progress, training_judge(own, threads, progress))
        plan = rounds.until_the_last_cut()
        steps = stages_of(opened, plan)
    dense, cut = steps[0].before, steps[-1].after
    progress("cutting", 0, 0)
    stages.save("canonical", dense)
    stages.save_steps(steps)
    progress("proving the cut", 0, 0)
    outcomes, exactness = prove_stages(steps, seed=seed, threads=threads, spare=spare)
    order = proved(opened, plan, dense, seed=seed, threads=threads, spare=spare)
    if rounds is not None:
        plan, final, refitted, solver, recovery = rounds.finished()
    else:
        method = options.chosen_recipe().compensation
        solver = sparsifier(plan, cut)
        refitted = None
        if method != "none" or solver is not None:
            progress("compensating", 0, 0)
            how = Options(method=method, seed=seed, threads=threads)
            refitted = refit(steps, calibration, how, counted(progress, "compensating"), solver, options.cache)
            final = refitted.model
        else:
            final = tidied(cut) if len(steps) > 1 or plan.structures != DEFAULT_STRUCTURES else cut
        trained, recovery = recovered(steps, final, plan, calibration, options, progress)
        is_open = plan.recovery is not None and not plan.recovery.runs
        if recovery is not None and is_open:
            final, recovery = unless_lower(final, trained, recovery, training_judge(own, threads, progress))
        else:
            final = trained
        plan = with_runs(plan, recovery)
        if is_open and recovery is not None and recovery.runs == NO_STEPS and not options.trains_in_8_bits:
            plan = plan.model_copy(update={"recovery": None})  # a replay needs no training at all then
    stages.save("model", final)
    target = None if recovery is not None else target_of(steps, planned_layers(plan))
    if refitted is None:
        warned = warnings_of(recovery)
        return Pruned(plan, final, tuple(outcomes), exactness, None, warned, recovery=recovery, target=target)
    records = compensation_records(refitted.records)
    was_dropped = any(warning.code == "PC333" for warning in refitted.warnings)  # then plain masks were written
    patterns = patterns_record(plan, final, None if was_dropped else solver, order)
    warnings = (*refitted.warnings, *warnings_of(recovery))
    return Pruned(plan, final, tuple(outcomes), exactness, records, warnings, patterns, recovery, target)


def target_of(steps: Sequence[Stage], patterns: Mapping[str, LayerPattern]) -> Target:
    """The dense model, for what the stages leave of it."""
    first, last = steps[0], steps[-1]
    is_one = len(steps) == 1 and not first.blocks
    analysis, alive = (first.analysis, first.alive) if is_one else whole(steps)
    return Target(first.before, analysis, alive, patterns, last.after)


@dataclass(frozen=True)
class Judged:
    """The user's metric, its numbers by name on the model as it was read, and that model, for bounds (`margins`)."""

    metric: Metric
    dense: dict[str, float]
    answers: Remembered


def training_judge(own: Judged | None, threads: int, progress: Progress) -> JudgeTraining | None:
    """The metric on a model before and after training; None without one. PrunecError PC351."""
    if own is None:
        return None

    def numbers(before: ir.Model, after: ir.Model) -> TrainingMetric:
        progress("judging the training", 0, 0)
        found = [quality_by_metric(own.metric, own.dense, runner(model, threads)) for model in (before, after)]
        return TrainingMetric(name=found[0].metric, before=found[0].pruned, after=found[1].pruned)

    return numbers


def judge_dense(opened: Opened, metric: Metric | None, threads: int, progress: Progress = silent) -> Judged | None:
    """The dense model's numbers; None without a metric. PrunecError PC351: it fails."""
    if metric is None:
        return None
    progress("judging the dense model", 0, 0)
    run = runner(opened.source.model, threads)
    return Judged(metric, evaluate(metric, run, samples=None), Remembered(run))


def judge(
    opened: Opened, pruned: ir.Model, calibration: Calibration, options: PlanOptions, own: Judged | None,
    *, is_bounded: bool = False,
) -> QualityRecord | None:  # fmt: skip
    """Quality of the pruned model against the model as it was read; None where the data shows nothing.

    `is_bounded`: the drop of a metric has a bound for other data, which takes some evaluations more.

    Raises:
        PrunecError PC351: the metric fails; GateError PC502: the pruned model answers NaN.
    """
    if own is not None:
        beside = own.answers if is_bounded else None
        return quality_by_metric(own.metric, own.dense, runner(pruned, options.threads), dense=beside)
    memory = working_bytes(opened.canonical)

    def answers(model: ir.Model) -> Iterator[dict[str, np.ndarray]]:
        return outputs(model, calibration.held_out, threads=options.threads, ram_bytes=memory)

    with ArrayStore[tuple[int, str]](memory) as store:
        names: list[list[str]] = []
        for number, found in enumerate(answers(opened.source.model)):
            names.append(list(found))
            for name, array in found.items():
                store.put((number, name), array)
        dense = ({name: store.get((number, name)) for name in own} for number, own in enumerate(names))
        refitted = answers(pruned)
        return quality_by_agreement(
            lambda _: next(dense), lambda _: next(refitted), calibration.held_out(), data=calibration.source
        )


def runner(model: ir.Model, threads: int) -> Run:
    """Feeds → outputs, in ONNX Runtime."""
    session = make_session(model, threads=threads)
    return lambda feeds: run(session, feeds)
