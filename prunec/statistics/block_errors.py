"""What a model's outputs lose without some of its blocks: measured, one forward pass per question.

    error(S) = mean over outputs of Σ‖y − y_S‖²/Σ‖y‖²,   y_S: without the blocks S

All blocks are gated by inputs of one session, so that asking about another set costs no new session.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from prunec.backends.onnx.session import make_session
from prunec.diagnostics import PrunecError
from prunec.graph.branches import Block
from prunec.passes.remove_blocks import gate_blocks
from prunec.statistics.collect import CalibrationData
from prunec.verify.float64 import reference_cost

SCORE_MACS = 2e11
FEWEST_SAMPLES, MOST_SAMPLES = 8, 32


def sample_count(model: ir.Model, calibration: CalibrationData, blocks: int) -> int:
    """As many samples as `SCORE_MACS` allow when every block is asked about once."""
    feeds = next(iter(calibration.fit()), None)
    if feeds is None or not blocks:
        return FEWEST_SAMPLES
    batch = max(len(next(iter(feeds.values()))), 1)
    affordable = int(SCORE_MACS / max(reference_cost(model, feeds) / batch * blocks, 1))
    return min(max(affordable, FEWEST_SAMPLES), MOST_SAMPLES)


class BlockErrors:
    """Asks one model about sets of its blocks, on the first `samples` of the calibration data or a few more.

    Raises PrunecError PC331 where there is no calibration sample.
    """

    def __init__(
        self, model: ir.Model, blocks: Sequence[Block], calibration: CalibrationData, samples: int, *, threads: int = 1
    ) -> None:
        self.blocks = list(blocks)
        gated, self._gates = gate_blocks(model, blocks)
        self._outputs = [str(value.name) for value in model.graph.outputs]
        self._session = make_session(gated, threads=threads)
        self._batches = list(_first(calibration, samples))
        if not self._batches:
            raise PrunecError("PC331", "there is no calibration sample to judge blocks by")
        self._dense = [self._run(feeds, frozenset()) for feeds in self._batches]
        self._energy = np.array([sum(_square(y[i]) for y in self._dense) for i in range(len(self._outputs))])

    def error(self, removed: Collection[Block]) -> float:
        """error(S); inf where an output is not finite or has another shape."""
        names = frozenset(block.name for block in removed)
        sums = np.zeros(len(self._outputs))
        for feeds, dense in zip(self._batches, self._dense, strict=True):
            for i, (wanted, found) in enumerate(zip(dense, self._run(feeds, names), strict=True)):
                sums[i] += _square(wanted - found.astype(np.float64)) if found.shape == wanted.shape else np.inf
        errors = sums / np.where(self._energy > 0, self._energy, 1.0)
        return float(errors.mean()) if np.isfinite(errors).all() else float("inf")

    def _run(self, feeds: Mapping[str, np.ndarray], removed: frozenset[str]) -> list[np.ndarray]:
        gates = {
            gate: np.array(block.name not in removed) for gate, block in zip(self._gates, self.blocks, strict=True)
        }
        found = self._session.run(self._outputs, {**feeds, **gates})
        return [np.asarray(y, np.float64) for y in found]


def _first(calibration: CalibrationData, samples: int) -> Iterator[dict[str, np.ndarray]]:
    """Whole batches until there are enough samples."""
    seen = 0
    for feeds in calibration.fit():
        if seen >= samples:
            return
        yield {name: array.copy() for name, array in feeds.items()}  # the source may fill the same array again
        seen += max(len(next(iter(feeds.values()))), 1)


def _square(array: np.ndarray) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.square(array).sum())
