"""What a model's outputs lose without some of its blocks: one forward pass per question (`output_errors`).

All blocks are gated by inputs of one session, so that asking about another set costs no new session.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from prunec.backends.onnx.session import make_session
from prunec.graph.branches import Block
from prunec.passes.remove_blocks import gate_blocks
from prunec.statistics.collect import CalibrationData
from prunec.statistics.output_errors import Answers, Reference, first_batches


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
        self._batches = first_batches(calibration.fit(), samples)
        self._reference = Reference(self._answers(frozenset()))

    def error(self, removed: Collection[Block]) -> float:
        """The error without the blocks `removed`; inf where an output is not finite or has another shape."""
        return self._reference.error(self._answers(frozenset(block.name for block in removed)))

    def _answers(self, removed: frozenset[str]) -> Iterator[Answers]:
        gates = {
            gate: np.array(block.name not in removed) for gate, block in zip(self._gates, self.blocks, strict=True)
        }
        return (self._session.run(self._outputs, {**feeds, **gates}) for feeds in self._batches)
