"""How far the outputs are from the dense model's on held-out samples, those that watch or those that judge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from prunec.array_store import ArrayStore
from prunec.recover.data import Batch
from prunec.recover.judging import sample_losses
from prunec.recover.losses import output_loss
from prunec.recover.student import State, tensors
from prunec.recover.subject import Subject
from prunec.recover.teacher import Teacher

RAM_BYTES = 64 * 1024**2
SHARES = (1.0, 0.5, 0.25)
"""Of the way from the state before a training to the one after it."""


class WatchedOutputs:
    """The dense model's answers to `batches`, by default those that watch, in memory or in a file. Close it."""

    def __init__(self, subject: Subject, batches: Sequence[Batch] | None = None) -> None:
        self._subject, self._outputs = subject, subject.outputs
        self._batches = subject.pool.watched if batches is None else batches
        self._part = subject.student.part(None, list(self._outputs))
        self._store = ArrayStore[tuple[int, str]](RAM_BYTES)
        teacher = Teacher(subject.dense, list(self._outputs), subject.kept, subject.threads)
        for number, batch in enumerate(self._batches):
            for name, array in teacher.arrays(subject.pool.feeds(batch)).items():
                self._store.put((number, name), np.ascontiguousarray(array))

    def error(self) -> float:
        """The output loss of the student as it is now, per sample."""
        asked = (float(output_loss(y, t, self._outputs)) * len(batch) for batch, y, t in self._answered())
        return sum(asked) / sum(map(len, self._batches))

    def losses(self) -> np.ndarray:
        """The same of every sample, float64 [samples]."""
        pool = self._subject.pool
        asked = [sample_losses(y, t, self._outputs, pool.count(batch)) for batch, y, t in self._answered()]
        return np.concatenate(asked)

    def _answered(self) -> Iterator[tuple[Batch, dict[str, torch.Tensor], dict[str, torch.Tensor]]]:
        """Every batch with what the student gives, and what the dense model does."""
        with torch.no_grad():
            for number, batch in enumerate(self._batches):
                found = self._part(tensors(self._subject.pool.feeds(batch)))
                yield batch, found, tensors({name: self._store.get((number, name)) for name in self._outputs})

    def take_part(self, before: State, error: float) -> float:
        """Of the way from the state `before`, whose error is `error`, leave the student the largest share that helps.

        A block that was trained to give what the dense one gives can harm the outputs all the same: the layers after it
        were fitted to what it gave before. Returns the error where the student is left, never above `error`.
        """
        student = self._subject.student
        after = student.state(before)
        for share in SHARES:
            student.restore(_between(before, after, share))
            found = self.error()
            if found < error:
                return found
        student.restore(before)
        return error

    def close(self) -> None:
        self._store.close()


def _between(before: State, after: State, share: float) -> State:
    """`after` itself, to the last bit, where all of it is taken."""
    if share == 1:
        return after
    return {name: torch.lerp(tensor, after[name], share) for name, tensor in before.items()}
