"""Train what is left of a model against the dense one, without labels, within a number of minutes.

    bias     biases and norms, end to end                (PERP, arXiv 2312.15230)
    blocks   all weights that are left, block by block   (`blockwise`)
    full     all weights that are left, end to end       (`end_to_end`); block by block first where outputs are far off

Zeros stay zeros, shapes stay shapes. The samples are those that were fitted to; every second of those that are held out
is watched to stop in time, and the result is kept only if what training lowers (`losses.output_loss`) falls on the
others.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch

from prunec.diagnostics import Diagnostic, PrunecError
from prunec.heap import blocks_stay
from prunec.passes.compensate.pairs import Kept
from prunec.passes.held_out import held_out_error
from prunec.plan.recovery import RecoveryPlan, RecoveryRun
from prunec.recover.blockwise import blocks_of, train_blocks
from prunec.recover.clock import Clock, Now, Tell
from prunec.recover.data import Pool
from prunec.recover.end_to_end import train_end_to_end, train_soup
from prunec.recover.judging import helps, is_beyond_chance
from prunec.recover.losses import Kind, kinds
from prunec.recover.parameters import Trainable, trainable
from prunec.recover.precision import settled
from prunec.recover.student import Student
from prunec.recover.subject import Subject
from prunec.recover.teacher import comparable, sees_mirrored_alike
from prunec.recover.training import Run, not_finite
from prunec.recover.watched import WatchedOutputs
from prunec.statistics.collect import CalibrationData

BIAS_RATE, BLOCK_RATE, FULL_RATE = 0.02, 0.005, 0.005
"""Shares of a tensor's scale, see `training`."""
BLOCKS_FIRST, FAR = 0.35, 0.5
"""Share of the time of `full` that goes to blocks first, where the outputs' error before is at least so large: what
one shot destroyed gains by it, what compensation fitted well does not."""


@dataclass(frozen=True)
class Recovered:
    """`model` is the one that was given where training did not help (`is_kept`); errors are ‖y − y_dense‖/‖y_dense‖."""

    model: ir.Model
    is_kept: bool
    error_before: float
    error_after: float
    samples: int
    parameters: int
    minutes: float
    runs: tuple[Run, ...]
    warnings: tuple[Diagnostic, ...]


def recover(
    dense: ir.Model,
    pruned: ir.Model,
    kept: Kept,
    calibration: CalibrationData,
    plan: RecoveryPlan,
    *,
    threads: int = 1,
    seed: int = 0,
    tell: Tell | None = None,
    now: Now = time.monotonic,
) -> Recovered:
    """`pruned`, trained as `plan` says; with `plan.runs` by steps, else by minutes of `now`. Both models stay.

    Raises:
        PrunecError PC040: an operator without a torch function; PC343: there is nothing to train; PC346: outputs that
        are not finite, so that no error says whether training helps; PC347: bf16 on a processor without it.
    """
    plan = settled(plan)
    with training_clock(plan, threads, tell, now) as clock:
        return _recover(dense, pruned, kept, calibration, plan, clock, threads, seed)


@contextmanager
def training_clock(plan: RecoveryPlan, threads: int, tell: Tell | None, now: Now = time.monotonic) -> Iterator[Clock]:
    """Torch on so many threads while it lasts, and Ctrl-C ends the training. With planned runs there is no limit."""
    clock = Clock(None if plan.runs else 60 * plan.minutes, tell, now)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with clock.interruptible(), blocks_stay():
            yield clock
    finally:
        torch.set_num_threads(before)


def _recover(
    dense: ir.Model,
    pruned: ir.Model,
    kept: Kept,
    calibration: CalibrationData,
    plan: RecoveryPlan,
    clock: Clock,
    threads: int,
    seed: int,
) -> Recovered:
    trained = trainable(pruned)
    student, outputs = Student(pruned, trained), kinds(pruned)
    check_trainable(student, outputs)
    pool = Pool(pruned, calibration)
    try:
        subject = subject_of(dense, pruned, kept, pool, student, trained, outputs, clock, seed, threads, plan.precision)
        before = held_out_error(dense, pruned, pool, threads)
        if not math.isfinite(before):
            raise not_finite("held-out samples")
        with closing(WatchedOutputs(subject, pool.judged)) as judged:
            losses = judged.losses()
            runs = tuple(training_runs(subject, plan, before))
            trained_losses = judged.losses()
        model = student.written_to(pruned)
        after = held_out_error(dense, model, pool, threads)
    finally:
        pool.close()
    return outcome(subject, (pruned, model), runs, (before, after), (losses, trained_losses))


def subject_of(
    dense: ir.Model,
    pruned: ir.Model,
    kept: Kept,
    pool: Pool,
    student: Student,
    trained: Trainable,
    outputs: dict[str, Kind],
    clock: Clock,
    seed: int,
    threads: int,
    precision: str,
) -> Subject:
    """With the places at which the models can be compared; `pool` gets to know whether images may be mirrored."""
    feeds = pool.feeds(pool.training[0])
    places = comparable(dense, pruned, kept, feeds, threads)
    pool.mirrors = pool.augments and sees_mirrored_alike(dense, list(outputs), kept, feeds, threads)
    return Subject(dense, pruned, kept, pool, student, trained, outputs, places, clock, seed, threads, precision)


def outcome(
    subject: Subject,
    models: tuple[ir.Model, ir.Model],
    runs: tuple[Run, ...],
    errors: tuple[float, float],
    losses: tuple[np.ndarray, np.ndarray],
    *,
    where: str = "",
) -> Recovered:
    """Which model stays and what is said of a training that is over; `where` goes before the names of runs.

    `models`, `errors` of the outputs and `losses` of the samples that judge: before training and after it.
    """
    student, is_kept = subject.student, helps(*losses)
    return Recovered(
        model=models[is_kept],
        is_kept=is_kept,
        error_before=errors[0],
        error_after=errors[1],
        samples=subject.pool.samples,
        parameters=student.count,
        minutes=subject.clock.elapsed_s / 60,
        runs=runs,
        warnings=(
            *subject.pool.warnings(student.count),
            *findings(runs, is_kept, where),
            *chance(*losses, where),
        ),
    )


def check_trainable(student: Student, outputs: Collection[str]) -> None:
    """PC343 where there is nothing to train, or no error to lower."""
    if not student.parameters or not outputs:
        what = "weights or biases in float32" if outputs else "outputs that are real numbers"
        raise PrunecError("PC343", f"there is nothing to train: the model has no {what}", where="--recover")


def training_runs(subject: Subject, plan: RecoveryPlan, error: float) -> Iterator[Run]:
    """The runs of the method, each of which leaves the student in its best state. `error` is that of the outputs."""
    planned, clock, student = list(plan.runs), subject.clock, subject.student
    if plan.method == "bias":
        shifts = [name for name in subject.trained.shifts if name in student.parameters]
        if not shifts:
            raise PrunecError("PC343", "there are no biases or norms to train", where="--recover", hint="use blocks")
        yield from _end_to_end(subject, plan, shifts, BIAS_RATE, planned)
        return
    found = blocks_of(subject)
    if plan.method == "blocks" or (len(found) > 1 and error >= FAR):
        share = 1.0 if plan.method == "blocks" else BLOCKS_FIRST
        seconds = None if clock.left_s is None else share * clock.left_s
        yield from train_blocks(subject, found, BLOCK_RATE, seconds, planned[: len(found)])
        planned = planned[len(found) :]
        if plan.method == "blocks" or clock.is_over() or (plan.runs and not planned):
            return
    yield from _end_to_end(subject, plan, [*student.parameters], FULL_RATE, planned)


def _end_to_end(
    subject: Subject, plan: RecoveryPlan, wanted: list[str], rate: float, planned: list[RecoveryRun]
) -> Iterator[Run]:
    seconds = subject.clock.left_s
    if plan.soup > 1:
        yield from train_soup(subject, wanted, rate, seconds, planned, plan.soup)
    else:
        yield train_end_to_end(subject, wanted, rate, seconds, planned[0] if planned else None)


def chance(before: np.ndarray, after: np.ndarray, name: str = "") -> Iterator[Diagnostic]:
    """What is to be said where the losses of the samples that judge fell, and that may be chance."""
    if helps(before, after) and not is_beyond_chance(before, after):
        message = (
            f"{name}training brought the outputs nearer on {len(before)} held-out samples or batches, by no more than "
            "chance would: it may help or harm"
        )
        yield Diagnostic("PC349", message, hint="judge the result with --metric, or give more samples with --calib")


def findings(runs: tuple[Run, ...], is_kept: bool, name: str = "") -> Iterator[Diagnostic]:
    """What is to be said about training that did not go as it should; `name` comes before it."""
    for run in runs:
        if run.stop == "diverged":
            message = f"{name}training diverged ({run.name}, step {run.done} of {run.of}); its best state is kept"
            yield Diagnostic("PC344", message, hint="more and more varied samples help most")
    if any(run.stop == "interrupted" for run in runs):
        yield Diagnostic("PC345", f"{name}training was interrupted: the best state until then is kept")
    if not is_kept:
        message = f"{name}training did not bring the outputs nearer on held-out samples: the weights stay as they were"
        yield Diagnostic("PC342", message, hint="give more samples or more minutes, or leave --recover out")
