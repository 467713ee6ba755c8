"""Train a quantised model against the dense one through its quantisers, without labels.

What is trained are real numbers, the masters of the integers (`passes/quantise/masters.py`): the model computes with
the nearest multiples of their steps, and gradients pass the rounding as if it were not there (the straight-through
estimator, Bengio et al., arXiv 1308.3432; quantisation-aware training as of Jacob et al., arXiv 1712.05877). Ranges,
scales and zeros stay what the quantiser chose; a master stays within the range of its integers. Samples, schedules
and losses are those of `recovery`. The result is the integers nearest to the masters, kept only if the outputs of
*that* model, as ONNX Runtime computes it, are nearer to the dense model's on samples that neither trained nor
watched.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir
import torch

from prunec.backends.onnx.session import make_session, run
from prunec.passes.compensate.pairs import Kept
from prunec.passes.held_out import held_out_error
from prunec.passes.quantise.masters import Masters, on_grids, with_masters
from prunec.passes.quantise.strip import dequantised
from prunec.plan.recovery import RecoveryPlan
from prunec.recover.clock import Tell
from prunec.recover.data import Pool
from prunec.recover.judging import sample_losses
from prunec.recover.losses import kinds
from prunec.recover.parameters import Trainable, trainable
from prunec.recover.recovery import Recovered, check_trainable, outcome, subject_of, training_clock, training_runs
from prunec.recover.student import Student, tensors
from prunec.recover.subject import Subject
from prunec.recover.teacher import Teacher
from prunec.recover.training import not_finite
from prunec.statistics.collect import CalibrationData


class MasterStudent(Student):
    """A student whose masters stay within the ranges of their integers."""

    def __init__(self, masters: Masters, trained: Trainable) -> None:
        super().__init__(masters.model, trained)
        self.limits = {
            name: torch.from_numpy(np.broadcast_to(grid.limits(), self.parameters[name].shape).copy())
            for name, grid in masters.grids.items()
            if name in self.parameters
        }

    def mask_weights(self, wanted: Collection[str]) -> None:
        super().mask_weights(wanted)
        with torch.no_grad():
            for name in wanted:
                if name in self.limits:
                    self.parameters[name].clamp_(-self.limits[name], self.limits[name])


def recover_quantised(
    dense: ir.Model,
    quantised: ir.Model,
    bits: int,
    kept: Kept,
    calibration: CalibrationData,
    plan: RecoveryPlan,
    *,
    threads: int = 1,
    seed: int = 0,
    tell: Tell | None = None,
) -> Recovered:
    """`quantised` (as `passes.quantise` writes it, weights of so many `bits`) trained as `plan` says.

    With `plan.runs` by steps, else by minutes. `kept`: what is left of `dense`. Errors are those of the model in 8
    bits.

    Raises:
        PrunecError PC040: an operator without a torch function; PC343: there is nothing to train; PC346: outputs that
        are not finite.
    """
    masters, twin = with_masters(quantised, bits), dequantised(quantised)
    with training_clock(plan, threads, tell) as clock:
        trained, outputs = trainable(twin), kinds(twin)
        student, pool = MasterStudent(masters, trained), Pool(twin, calibration)
        try:
            check_trainable(student, outputs)
            subject = subject_of(
                dense, masters.model, kept, pool, student, trained, outputs, clock, seed, threads, "fp32"
            )
            before, losses = held_out_error(dense, quantised, pool, threads), _losses(subject, quantised)
            if not np.isfinite(before):
                raise not_finite("held-out samples")
            runs = tuple(training_runs(subject, plan, before))
            model = on_grids(quantised, masters, student.written_to(masters.model))
            after, trained_losses = held_out_error(dense, model, pool, threads), _losses(subject, model)
            both = (losses, trained_losses)
            return outcome(subject, (quantised, model), runs, (before, after), both, where="in 8 bits, ")
        finally:
            pool.close()


def _losses(subject: Subject, model: ir.Model) -> np.ndarray:
    """What training lowers, of `model` as ONNX Runtime computes it, of every sample that judges."""
    names, found = list(subject.outputs), list[np.ndarray]()
    teacher, session = (
        Teacher(subject.dense, names, subject.kept, subject.threads),
        make_session(model, threads=subject.threads, outputs=names),
    )
    for batch in subject.pool.judged:
        feeds, count = subject.pool.feeds(batch), subject.pool.count(batch)
        found.append(sample_losses(tensors(run(session, feeds)), teacher(feeds), subject.outputs, count))
    return np.concatenate(found)
