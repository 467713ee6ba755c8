"""Distillation end to end: the outputs of the dense model, and what it has at borders on the way.

    loss = output loss + ½ · mean over borders of the relative squared error        (`losses`)

The dense model answers every batch anew where samples are changed on the way; where they are not, its answers are kept
up to a limit. The watched error is the output loss alone (`watched`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np
import torch

from prunec.array_store import ArrayStore
from prunec.plan.recovery import RecoveryRun
from prunec.recover.augment import Feeds
from prunec.recover.data import Batch
from prunec.recover.losses import output_loss, relative
from prunec.recover.precision import computed_in
from prunec.recover.soup import greedy
from prunec.recover.student import State, tensors
from prunec.recover.subject import Subject
from prunec.recover.teacher import Teacher
from prunec.recover.training import Budget, Objective, Run, train
from prunec.recover.watched import WatchedOutputs

FEATURES = 4
"""Borders that are compared, evenly from all of them."""
FEATURE_SHARE = 0.5
RAM_BYTES, MOST_BYTES = 128 * 1024**2, 1024**3
"""Of kept answers: in memory, and at all."""
NAME = "end to end"


def train_end_to_end(
    subject: Subject, wanted: Sequence[str], rate: float, seconds: float | None, planned: RecoveryRun | None
) -> Run:
    """Train the parameters `wanted`."""
    with ArrayStore[tuple[int, str]](RAM_BYTES) as store, closing(WatchedOutputs(subject)) as outputs:
        objective = _Distillation(subject, store).objective(outputs)
        budget = Budget(seconds, planned)
        return train(subject.student, wanted, objective, rate, budget, subject.clock, NAME)


def train_soup(
    subject: Subject,
    wanted: Sequence[str],
    rate: float,
    seconds: float | None,
    planned: Sequence[RecoveryRun],
    count: int,
) -> Iterator[Run]:
    """`count` trainings from the same state, in shares of the time, and their greedy mean on the watched samples.

    The last run says in its name how many are in the mean, and its error.
    """
    student, clock, begun = subject.student, subject.clock, subject.clock.elapsed_s
    start, states, runs = student.state(wanted), list[State](), list[Run]()
    todo = len(planned) if planned else count
    for number in range(todo):
        student.restore(start)
        left = None if seconds is None else (begun + seconds - clock.elapsed_s) / (todo - number)
        own = replace(subject, seed=subject.seed + number)
        runs.append(train_end_to_end(own, wanted, rate, left, planned[number] if planned else None))
        states.append(student.state(wanted))
        if clock.was_interrupted:
            break
    with closing(WatchedOutputs(subject)) as outputs:

        def judge(state: Mapping[str, torch.Tensor]) -> float:
            student.restore(dict(state))
            return outputs.error()

        found = greedy(states, [run.after for run in runs], judge)
    student.restore(found.state)
    names = [f"{NAME}, training {i + 1} of {todo}" for i in range(len(runs))]
    names[-1] += f" (the mean of {len(found.taken)} is kept, error {found.error:.3g})"
    yield from (replace(run, name=name) for run, name in zip(runs, names, strict=True))


class _Distillation:
    def __init__(self, subject: Subject, store: ArrayStore[tuple[int, str]]) -> None:
        self.subject, self.pool = subject, subject.pool
        self.outputs = subject.outputs
        self.features = [name for name in _evenly(list(subject.borders), FEATURES) if name not in self.outputs]
        names = [*self.outputs, *self.features]
        self.part = subject.student.part(None, names)
        self.teacher = Teacher(subject.dense, names, subject.kept, subject.threads)
        self.drawn = self.pool.epochs(subject.seed)
        self.store, self.known = store, set[int]()
        self.is_kept = not self.pool.augments and self._fits()

    def objective(self, outputs: WatchedOutputs) -> Objective:
        return Objective(self.loss, outputs.error, self.trial, self.pool.parts)

    def loss(self) -> torch.Tensor:
        batch, rng = next(self.drawn)
        return self._loss(*self._asked(batch, rng))

    def trial(self, place: float) -> torch.Tensor:
        batch = self.pool.training[int(place * len(self.pool.training))]
        feeds = self.pool.drawn(batch, np.random.default_rng(0))
        return self._loss(feeds, self.teacher(feeds))

    def _loss(self, feeds: Feeds, wanted: dict[str, torch.Tensor]) -> torch.Tensor:
        with computed_in(self.subject.precision):
            found = {name: tensor.float() for name, tensor in self.part(tensors(feeds)).items()}
        loss = output_loss(found, wanted, self.outputs)
        if self.features:
            apart = [relative(found[name], wanted[name]) for name in self.features]
            loss = loss + FEATURE_SHARE * torch.stack(apart).mean()
        return loss

    def _asked(self, batch: Batch, rng: np.random.Generator) -> tuple[Feeds, dict[str, torch.Tensor]]:
        feeds = self.pool.drawn(batch, rng)
        if not self.is_kept:
            return feeds, self.teacher(feeds)
        if not self.known.issuperset(batch):
            for name, array in self.teacher.arrays(feeds).items():
                for item, own in zip(batch, np.split(array, len(batch)), strict=True):
                    self.store.put((item, name), np.ascontiguousarray(own))
            self.known.update(batch)
        names = [*self.outputs, *self.features]
        kept = {name: np.concatenate([self.store.get((item, name)) for item in batch]) for name in names}
        return feeds, tensors(kept)

    def _fits(self) -> bool:
        """Whether the answers to all samples can be kept, and taken apart by sample."""
        batch = self.pool.training[0]
        found = self.teacher.arrays(self.pool.feeds(batch)).values()
        is_split = all(array.ndim and len(array) % len(batch) == 0 for array in found)
        count = sum(map(len, self.pool.training))
        return is_split and sum(array.nbytes for array in found) / len(batch) * count <= MOST_BYTES


def _evenly(names: Sequence[str], most: int) -> list[str]:
    if len(names) <= most:
        return list(names)
    return [names[round(i * (len(names) - 1) / (most - 1))] for i in range(most)]
