"""What is trained on: the calibration samples that were fitted to. Every second of those held out watches the training.

Samples that were fitted to cannot watch: compensation has learnt some of them by heart, and training that helps all
others looks as if it harmed. The rest of those held out judges the result.

Where the model's batch axis is dynamic, samples of equal shapes make batches of up to `MOST` (fewer where activations
are large); a model with a batch of its own gets that. Arrays are in memory up to a limit, then in a file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from prunec.array_store import ArrayStore
from prunec.diagnostics import Diagnostic
from prunec.graph.cost import model_macs
from prunec.graph.shapes import dims
from prunec.recover.augment import Feeds, augmented, can_augment
from prunec.statistics.collect import CalibrationData

FEWEST, MOST = 8, 32
"""Samples of a step."""
STEP_MACS = 2e9
"""Of one forward pass of a step: more steps are worth more than larger ones."""
ACTIVATION_BYTES = 128 * 1024**2
RAM_BYTES = 256 * 1024**2
FEW = 64
Batch = tuple[int, ...]
"""Numbers of items."""


class Pool:
    """`training`, `watched`, `judged`: batches of items; `parts` of them make a step. Close it: it may hold a file.

    With a single item held out that one watches and judges. `mirrors`: whether images may be drawn from the other side,
    which whoever knows the dense model decides.
    """

    def __init__(self, model: ir.Model, calibration: CalibrationData) -> None:
        self._store = ArrayStore[tuple[int, str]](RAM_BYTES)
        self._shapes: list[tuple[tuple[int, ...], ...]] = []
        self._names: list[str] = []
        splits = _splits(model)
        count = self._add(calibration.fit(), splits)
        held = range(count, count + self._add(calibration.held_out(), splits))
        self.size = batch_size(model) if splits else 1
        self.samples = self.count(tuple(range(count)))
        self.training = self.grouped(range(count))
        self.watched = self.grouped(held[::2])
        self.judged = self.grouped(held[1::2]) or self.watched
        self.parts = 1 if splits else max(1, FEWEST // self.count(self.training[0]))
        self.augments = self._is_batched() and can_augment(self.feeds(self.training[0]))
        self.mirrors = False

    def _add(self, batches: Iterator[Feeds], splits: bool) -> int:
        """How many items were added."""
        before = len(self._shapes)
        for feeds in batches:
            self._names = list(feeds)
            for item in _items(feeds) if splits else [feeds]:
                for name, array in item.items():
                    self._store.put((len(self._shapes), name), array)
                self._shapes.append(tuple(array.shape for array in item.values()))
        return len(self._shapes) - before

    def held_out(self) -> Iterator[Feeds]:
        """What judges the result."""
        return map(self.feeds, self.judged)

    def count(self, batch: Batch) -> int:
        """Samples of a batch."""
        return sum(self._shapes[item][0][0] if self._shapes[item][0] else 1 for item in batch)

    def _is_batched(self) -> bool:
        """Whether the leading axes of all inputs count the same samples."""
        return len({shape[0] if shape else 0 for shape in self._shapes[0]}) == 1

    def grouped(self, items: Sequence[int]) -> list[Batch]:
        """Items of equal shapes, in their order, `size` at a time."""
        alike: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for item in items:
            alike.setdefault(self._shapes[item], []).append(item)
        return [tuple(own[i : i + self.size]) for own in alike.values() for i in range(0, len(own), self.size)]

    def feeds(self, batch: Batch) -> Feeds:
        found = {name: [self._store.get((item, name)) for item in batch] for name in self._names}
        return {name: own[0] if len(own) == 1 else np.concatenate(own) for name, own in found.items()}

    def epochs(self, seed: int) -> Iterator[tuple[Batch, np.random.Generator]]:
        """Without end: the training items in another order every time, and what draws changes to a batch."""
        items = sorted(item for batch in self.training for item in batch)
        rng = np.random.default_rng(seed)
        while True:
            batches = self.grouped([items[i] for i in rng.permutation(len(items))])
            for number in rng.permutation(len(batches)):
                yield batches[number], rng

    def drawn(self, batch: Batch, rng: np.random.Generator) -> Feeds:
        """The batch, changed where that is possible."""
        feeds = self.feeds(batch)
        return augmented(feeds, rng, mirrors=self.mirrors) if self.augments else feeds

    def warnings(self, parameters: int) -> list[Diagnostic]:
        """PC341 where the samples are few."""
        if self.samples >= FEW:
            return []
        message = f"{self.samples} samples to train {parameters} numbers with: they will be learnt by heart"
        return [Diagnostic("PC341", message, hint=f"give {FEW} or more with --calib, --recover bias needs the fewest")]

    def close(self) -> None:
        self._store.close()


def batch_size(model: ir.Model) -> int:
    """Samples at a time: by what a step costs, and so that its activations stay below `ACTIVATION_BYTES`.

    `FEWEST` where further axes are dynamic, and nobody knows what a sample costs.
    """
    if any(not isinstance(d, int) for value in model.graph.inputs for d in (dims(value) or ())[1:]):
        return FEWEST
    shapes = (dims(value) or () for node in model.graph for value in node.outputs)
    sample = sum(4 * math.prod(d if isinstance(d, int) else 1 for d in shape) for shape in shapes)
    affordable = min(MOST, max(FEWEST, int(STEP_MACS / max(model_macs(model), 1))))
    return int(max(1, min(affordable, ACTIVATION_BYTES // max(sample, 1))))


def _splits(model: ir.Model) -> bool:
    """Whether every input has a leading axis of any length."""
    shapes = [dims(value) for value in model.graph.inputs if value.name not in model.graph.initializers]
    return all(shape and not isinstance(shape[0], int) for shape in shapes)


def _items(feeds: Feeds) -> Iterator[Feeds]:
    count = {len(array) for array in feeds.values()}
    if len(count) > 1:
        yield feeds
        return
    for i in range(count.pop()):
        yield {name: array[i : i + 1] for name, array in feeds.items()}
