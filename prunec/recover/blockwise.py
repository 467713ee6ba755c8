"""Block by block: minimise ‖block_dense(x_d) − block_pruned(x_p)‖² over the weights of one block at a time.

x_d is what the dense model feeds the block, x_p what the blocks before it, trained already, feed it: each block also
makes up for what those before it could not. Of the change that a block's training made, as much stays as helps the
outputs on the watched samples: what compensation fitted well to a block is lost where the block changes. Borders of
blocks are in `borders`; a target that is class scores is compared as such. Inputs and targets of one block are kept at
a time, in memory up to a limit, then in a file, and no more samples are taken than fit into `MOST_BYTES`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import closing

import numpy as np
import torch

from prunec.array_store import ArrayStore
from prunec.plan.recovery import RecoveryRun
from prunec.recover.augment import Feeds
from prunec.recover.borders import Block, blocks
from prunec.recover.losses import output_loss
from prunec.recover.precision import computed_in
from prunec.recover.student import Part, tensors
from prunec.recover.subject import Subject
from prunec.recover.training import Budget, Objective, Run, not_finite, train
from prunec.recover.watched import WatchedOutputs
from prunec.statistics.sweep import sweep

RAM_BYTES, MOST_BYTES = 384 * 1024**2, 1024**3
COPIES, ENOUGH = 3, 1024
"""Changed copies of every sample at most, while there are fewer samples than are enough."""
MOST_EPOCHS = 60
START = ""


def blocks_of(subject: Subject) -> list[Block]:
    """The blocks that have something to train."""
    found = blocks(subject.pruned, subject.trained, subject.borders)
    return [block for block in found if set(block.trained) & subject.student.parameters.keys()]


def train_blocks(
    subject: Subject, todo: Sequence[Block], rate: float, seconds: float | None, planned: Sequence[RecoveryRun]
) -> Iterator[Run]:
    """One run per block of `todo`, in the order of the graph; the time that a block leaves goes to those after it.

    With `planned` runs there is one for each of these.
    """
    of, clock = len(todo), subject.clock
    todo = todo[: len(planned)] if planned else todo
    start = clock.elapsed_s
    with ArrayStore[tuple[int, str]](RAM_BYTES) as store, closing(WatchedOutputs(subject)) as outputs:
        error = outputs.error()
        if not math.isfinite(error):
            raise not_finite("the samples that training is watched on")
        samples = _Samples(subject, store)
        wanted = [{*block.targets} for block in todo]
        found = sweep(subject.dense, wanted, samples.batches, threads=subject.threads, ram_bytes=RAM_BYTES)
        for number, block in enumerate(todo):
            for batch in range(samples.count):
                _, _, values = next(found)
                for name, array in values.items():
                    store.put((batch, name), np.ascontiguousarray(subject.kept.restrict(name, array)))
            left = None if seconds is None else (start + seconds - clock.elapsed_s) / (len(todo) - number)
            budget = Budget(left, planned[number] if planned else None, MOST_EPOCHS * len(samples.training))
            part = subject.student.part(block.start, block.targets)
            task = _Task(subject, store, samples, block, part, number)
            own = [name for name in block.trained if name in subject.student.parameters]
            name = f"block {number + 1} of {of}"
            before = subject.student.state(own)
            made = train(subject.student, own, task.objective(), rate, budget, clock, name)
            error = outputs.take_part(before, error)
            yield made
            if clock.is_over() or block is todo[-1]:
                return
            task.go_on()


class _Samples:
    """Fixed batches: the pool's, then changed copies of them, then those that are watched."""

    def __init__(self, subject: Subject, store: ArrayStore[tuple[int, str]]) -> None:
        pool, rng = subject.pool, np.random.default_rng(subject.seed)
        self._store, self._names = store, list[str]()
        training = [pool.training[i] for i in rng.permutation(len(pool.training))]
        most = self._most(subject)
        watched = pool.watched[: max(1, most // 8)]
        training = training[: max(1, most - len(watched))]
        self.count = 0
        for batch in training:
            self._add(pool.feeds(batch))
        wanted = min(max(most - len(watched), 1), -(-ENOUGH // pool.size))
        copies = COPIES if pool.augments else 0
        while copies and self.count < min(wanted, (copies + 1) * len(training)):
            self._add(pool.drawn(training[self.count % len(training)], rng))
        self.training = range(self.count)
        for batch in watched:
            self._add(pool.feeds(batch))
        self.watched = range(len(self.training), self.count)

    def _add(self, feeds: Feeds) -> None:
        self._names = list(feeds)
        for name, array in feeds.items():
            self._store.put((self.count, f"input {name}"), array)
        self.count += 1

    def _most(self, subject: Subject) -> int:
        """Batches whose values at the largest border, twice, stay within `MOST_BYTES`."""
        largest = max(subject.borders.values(), default=1)
        return max(2, MOST_BYTES // (2 * largest))

    def batches(self) -> Iterator[Feeds]:
        return map(self.feeds, range(self.count))

    def feeds(self, batch: int) -> Feeds:
        return {name: self._store.get((batch, f"input {name}")) for name in self._names}


class _Task:
    def __init__(
        self,
        subject: Subject,
        store: ArrayStore[tuple[int, str]],
        samples: _Samples,
        block: Block,
        part: Part,
        number: int,
    ) -> None:
        self.store, self.samples, self.block, self.part = store, samples, block, part
        self.kinds = {name: subject.outputs.get(name, "plain") for name in block.targets}
        self.parts, self.precision = subject.pool.parts, subject.precision
        self.order = self._orders(np.random.default_rng((subject.seed, number)))

    def _orders(self, rng: np.random.Generator) -> Iterator[int]:
        while True:
            yield from rng.permutation(len(self.samples.training)).tolist()

    def objective(self) -> Objective:
        return Objective(lambda: self._loss(next(self.order)), self.watched, self._trial, self.parts)

    def _trial(self, place: float) -> torch.Tensor:
        return self._loss(int(place * len(self.samples.training)))

    def watched(self) -> float:
        with torch.no_grad():
            return float(np.mean([float(self._error(batch, "fp32")) for batch in self.samples.watched]))

    def _given(self, batch: int) -> dict[str, torch.Tensor]:
        given = dict(self.samples.feeds(batch))
        if self.block.start is not None:
            given[self.block.start] = self.store.get((batch, START))
        return tensors({name: given[name] for name in self.part.inputs})

    def _loss(self, batch: int) -> torch.Tensor:
        return self._error(batch, self.precision)

    def _error(self, batch: int, precision: str) -> torch.Tensor:
        wanted = tensors({name: self.store.get((batch, name)) for name in self.block.targets})
        with computed_in(precision):
            found = {name: tensor.float() for name, tensor in self.part(self._given(batch)).items()}
        return output_loss(found, wanted, self.kinds)

    def go_on(self) -> None:
        """Replace the inputs of this block by those of the next, and forget the targets."""
        border = self.block.targets[-1]
        with torch.no_grad():
            for batch in range(self.samples.count):
                found = self.part(self._given(batch))[border].numpy().copy()
                for name in (START, *self.block.targets):
                    self.store.drop((batch, name))
                self.store.put((batch, START), found)
