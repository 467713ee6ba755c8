"""Training after a cut and its compensation (`prunec.recover`), as one step of a compile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import onnx_ir as ir

from prunec.api.evidence import finite
from prunec.api.options import PlanOptions
from prunec.api.progress import Progress, counted
from prunec.api.stages import Stage, whole
from prunec.diagnostics import Diagnostic
from prunec.frontend.calibration import Calibration
from prunec.frontend.torch_extra import require_torch
from prunec.passes.compensate.pairs import Kept
from prunec.plan.plan import Plan
from prunec.plan.recovery import NO_STEPS, RecoveryPlan, RecoveryRun
from prunec.recover.parameters import refuse_quantised
from prunec.verify.records import RecoveryRecord, RecoveryRoundRecord, RecoveryRunRecord, TrainingMetric

if TYPE_CHECKING:
    from prunec.recover.recovery import Recovered

JudgeTraining = Callable[[ir.Model, ir.Model], TrainingMetric]
"""A metric on a model before and after training."""
FLOAT_SHARE = 0.5
"""Of the minutes goes to training before quantisation, where another follows it."""


@dataclass(frozen=True)
class Recovery:
    """What training did; `runs` are for the plan, so that a replay does the same."""

    record: RecoveryRecord
    runs: tuple[RecoveryRun, ...]
    warnings: tuple[Diagnostic, ...]


def check_recovery(model: ir.Model, plan: RecoveryPlan | None) -> RecoveryPlan | None:
    """Refuse what cannot be trained before any work is done; `plan` with the precision that this machine trains in.

    PC030: no torch; PC040: an operator; PC340: quantised; PC347: bf16 on a processor that does not multiply it.
    """
    require_torch("--recover")
    refuse_quantised(model)
    from prunec.recover.precision import settled
    from prunec.torch.from_ir import refuse_unknown

    refuse_unknown(model.graph)
    return None if plan is None else settled(plan)


def recovered(
    steps: Sequence[Stage],
    model: ir.Model,
    plan: Plan,
    calibration: Calibration,
    options: PlanOptions,
    progress: Progress,
    *,
    name: str = "",
) -> tuple[ir.Model, Recovery | None]:
    """`model`, trained against the dense one as the plan says; the same where it says nothing. PC040, PC343, PC346.

    `name` comes before those of the runs.
    """
    if plan.recovery is None:
        return model, None
    from prunec.recover.recovery import recover

    progress(f"{name}recovering", 0, 0)
    asked = plan.recovery
    if options.trains_in_8_bits:
        asked = asked.model_copy(update={"minutes": FLOAT_SHARE * asked.minutes})
    found = recover(
        steps[0].before, model, Kept(*whole(steps)), calibration, asked, threads=options.threads,
        seed=options.seed, tell=counted(progress, f"{name}recovering"),
    )  # fmt: skip
    return found.model, _recovery(found, plan.recovery, name)


def recovered_in_8_bits(
    steps: Sequence[Stage],
    model: ir.Model,
    bits: int,
    asked: RecoveryPlan,
    calibration: Calibration,
    options: PlanOptions,
    progress: Progress,
) -> tuple[ir.Model, Recovery]:
    """The quantised `model`, trained in fp32 through its quantisers in the time that is left. PC040, PC343, PC346.

    By steps where `asked` has some for it, else by minutes.
    """
    from prunec.recover.quantised import recover_quantised

    progress("recovering in 8 bits", 0, 0)
    own = asked.model_copy(
        update={"minutes": (1 - FLOAT_SHARE) * asked.minutes, "runs": asked.quantised, "precision": "fp32"}
    )
    found = recover_quantised(
        steps[0].before, model, bits, Kept(*whole(steps)), calibration, own, threads=options.threads,
        seed=options.seed, tell=counted(progress, "recovering in 8 bits"),
    )  # fmt: skip
    return found.model, _recovery(found, own, "in 8 bits, ")


def _recovery(found: Recovered, asked: RecoveryPlan, name: str) -> Recovery:
    """`name` comes before those of the runs."""
    runs = tuple(
        RecoveryRunRecord(
            name=f"{name}{run.name}",
            of=run.of,
            done=run.done,
            error_before=run.before,
            error_after=run.after,
            stopped=run.stop,
        )
        for run in found.runs
    )
    record = RecoveryRecord(
        method=asked.method, precision=asked.precision, kept=found.is_kept, error_before=found.error_before,
        error_after=finite(found.error_after), samples=found.samples, parameters=found.parameters,
        minutes=round(found.minutes, 2), runs=runs,
    )  # fmt: skip
    warnings = found.warnings
    if asked.runs == NO_STEPS:  # nothing was to come nearer
        warnings = tuple(warning for warning in warnings if warning.code != "PC342")
    return Recovery(record, tuple(run.planned() for run in found.runs), warnings)


def unless_lower(
    before: ir.Model, after: ir.Model, recovery: Recovery, judge: JudgeTraining | None, name: str = ""
) -> tuple[ir.Model, Recovery]:
    """The model trained, `after`, unless a metric is lower there than `before`. `name` of what was trained."""
    if judge is None or not recovery.record.kept:
        return after, recovery
    recovery = _settled_by(recovery, judge(before, after), name)
    return (after if recovery.record.kept else before), recovery


def _settled_by(recovery: Recovery, judged: TrainingMetric, name: str) -> Recovery:
    """A training that was kept, as a metric judges it: undone where that is lower after it than before."""
    about = [warning for warning in recovery.warnings if warning.code != "PC349"]  # which a metric settles
    is_kept = judged.after >= judged.before
    record = recovery.record.model_copy(update={"kept": is_kept, "metric": judged})
    if is_kept:
        return replace(recovery, record=record, warnings=tuple(about))
    lowered = f"{judged.name} by {judged.before - judged.after:.3g}"
    found = Diagnostic(
        "PC353",
        f"{name}training lowered the outputs' loss, and {lowered} with it: it is undone",
        hint="give more or more varied samples with --calib, or leave --recover out",
    )
    about = [warning for warning in about if warning.code not in ("PC344", "PC345")]  # whose best state is gone
    return Recovery(record, NO_STEPS, (*about, found))


def interrupted(recovery: Recovery) -> bool:
    """Whether Ctrl-C ended it."""
    return any(run.stopped == "interrupted" for run in recovery.record.runs)


def as_round(recovery: Recovery, name: str) -> Recovery:
    """With an outcome of its own, beside those of the rounds that it will be joined with."""
    own = recovery.record
    outcome = RecoveryRoundRecord(
        name=name, kept=own.kept, trained=recovery.runs != NO_STEPS or own.metric is not None,
        error_before=own.error_before, error_after=own.error_after, metric=own.metric,
    )  # fmt: skip
    return replace(recovery, record=own.model_copy(update={"rounds": (outcome,)}))


def joined(first: Recovery, second: Recovery) -> Recovery:
    """Two rounds as one: all runs and outcomes, the errors of the second; `runs` are those of the second."""
    record = second.record.model_copy(
        update={
            "kept": first.record.kept or second.record.kept,
            "minutes": round(first.record.minutes + second.record.minutes, 2),
            "runs": (*first.record.runs, *second.record.runs),
            "rounds": (*(first.record.rounds or ()), *(second.record.rounds or ())),
        }
    )
    before = [warning for warning in first.warnings if warning.code != "PC341"]  # of the data, once is enough
    return Recovery(record, second.runs, tuple(dict.fromkeys((*before, *second.warnings))))


def warnings_of(recovery: Recovery | None) -> tuple[Diagnostic, ...]:
    return () if recovery is None else recovery.warnings


def with_quantised_runs(plan: Plan, recovery: Recovery) -> Plan:
    """`plan` with the steps that were made through the quantisers."""
    assert plan.recovery is not None
    return plan.model_copy(update={"recovery": plan.recovery.model_copy(update={"quantised": recovery.runs})})


def with_runs(plan: Plan, recovery: Recovery | None) -> Plan:
    """`plan` with the steps that were made."""
    if recovery is None or plan.recovery is None:
        return plan
    return plan.model_copy(update={"recovery": plan.recovery.model_copy(update={"runs": recovery.runs})})
