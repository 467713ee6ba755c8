"""What a model's outputs lose when it is changed: the error that cuts, blocks and levels are weighed by.

error = mean over outputs of Σ‖y − y'‖²/Σ‖y‖²,   y, y': outputs of the model and of the changed one
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from prunec.diagnostics import PrunecError
from prunec.statistics.collect import CalibrationData
from prunec.statistics.sweep import outputs
from prunec.verify.float64 import reference_cost
from prunec.working_memory import working_bytes

Feeds = dict[str, np.ndarray]
Answers = Sequence[np.ndarray]
"""One model's outputs on one batch."""
SCORE_MACS = 2e11
FEWEST_SAMPLES, MOST_SAMPLES = 8, 32


def sample_count(model: ir.Model, calibration: CalibrationData, questions: int, *, most: int = MOST_SAMPLES) -> int:
    """As many samples as `SCORE_MACS` allow for that many forward passes, `most` at most."""
    feeds = next(iter(calibration.fit()), None)
    if feeds is None or not questions:
        return FEWEST_SAMPLES
    batch = max(len(next(iter(feeds.values()))), 1)
    affordable = int(SCORE_MACS / max(reference_cost(model, feeds) / batch * questions, 1))
    return min(max(affordable, FEWEST_SAMPLES), most)


def first_batches(batches: Iterable[Feeds], samples: int) -> list[Feeds]:
    """Whole batches until there are enough samples. PrunecError PC331 where there is none."""
    found: list[Feeds] = []
    seen = 0
    for feeds in batches:
        if seen >= samples:
            break
        found.append({name: array.copy() for name, array in feeds.items()})  # the source may fill the same array again
        seen += max(len(next(iter(feeds.values()))), 1)
    if not found:
        raise PrunecError("PC331", "there is no calibration sample to judge the outputs by")
    return found


class Reference:
    """The unchanged model's outputs, batch by batch; sums are in float64."""

    def __init__(self, answers: Iterable[Answers]) -> None:
        self._wanted = [list(own) for own in answers]
        self._energy = np.sum([[_square(y) for y in own] for own in self._wanted], axis=0)

    def error(self, answers: Iterable[Answers]) -> float:
        """Of another model's outputs on the same batches; inf where one is not finite or has another shape."""
        sums = np.zeros(len(self._energy))
        for wanted, found in zip(self._wanted, answers, strict=True):
            for i, (y, other) in enumerate(zip(wanted, found, strict=True)):
                sums[i] += _square(y - other.astype(np.float64)) if y.shape == np.shape(other) else np.inf
        errors = sums / np.where(self._energy > 0, self._energy, 1.0)
        return float(errors.mean()) if np.isfinite(errors).all() else float("inf")


class OutputErrors:
    """Asks about other models in the place of `model`, on `samples` of the held-out data or a few more.

    `progress` (done, of, what) is told of every question. Raises PrunecError PC331 where no sample is held out.
    """

    def __init__(
        self,
        model: ir.Model,
        calibration: CalibrationData,
        samples: int,
        *,
        threads: int = 1,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> None:
        self._model, self._threads, self._progress = model, threads, progress
        self._ram_bytes, self._asked = working_bytes(model), 0
        self._batches = first_batches(calibration.held_out(), samples)
        self._reference = Reference(self._answers(model))

    def of(self, other: ir.Model) -> float:
        """The error of `other`."""
        self._asked += 1
        if self._progress is not None:
            self._progress(0, 0, str(self._asked))
        return self._reference.error(self._answers(other))

    def _answers(self, model: ir.Model) -> Iterator[Answers]:
        found = outputs(model, lambda: iter(self._batches), threads=self._threads, ram_bytes=self._ram_bytes)
        return (list(own.values()) for own in found)


def _square(array: np.ndarray) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.square(array, dtype=np.float64).sum())
