"""float64 decides where a compiled model and ONNX Runtime give different float32 numbers.

Of two float32 results that differ neither need be right. Then the same graph is evaluated in float64 (`reference`), and
the compiled model passes only where every output of every sample is within the tolerance of that: ONNX Runtime's
number is no longer a yardstick, but stands in the record beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from prunec.backends.cpu.lower.prepare import prepare
from prunec.verify.float64 import reference_cost
from prunec.verify.metrics import max_relative
from prunec.verify.records import LoweringRecord
from prunec.verify.reference import NotEvaluable, evaluate_float64

Outputs = dict[str, np.ndarray]
MOST_MACS = 1e11
"""Of one evaluation (`reference_cost`), about a minute. Ten times what a proof may take: without it all is refused."""


class Referee:
    """float64 outputs of `reference` for each of the samples, evaluated once, when they are asked for."""

    def __init__(self, reference: ir.Model | Path, samples: Sequence[Mapping[str, np.ndarray]]) -> None:
        self._reference, self._samples = reference, samples
        self._truths: list[Outputs] = []

    def truths(self) -> Iterator[Outputs]:
        """In the order of the samples. Raises NotEvaluable: too costly, or an operator refuses float64."""
        for number, feeds in enumerate(self._samples):
            if number == len(self._truths):
                self._truths.append(self._evaluate(feeds))
            yield self._truths[number]

    def _evaluate(self, feeds: Mapping[str, np.ndarray]) -> Outputs:
        model = ir.load(self._reference) if isinstance(self._reference, Path) else self._reference
        cost = reference_cost(prepare(model, {name: array.shape for name, array in feeds.items()}), feeds)
        if cost > MOST_MACS:
            raise NotEvaluable(f"one run costs {cost:.2g} MACs, over the limit of {MOST_MACS:.2g}")
        names = [value.name or "" for value in model.graph.outputs]
        return dict(zip(names, evaluate_float64(model, feeds), strict=True))


@dataclass(frozen=True)
class Verdict:
    """Largest errors against float64, relative to the range of an output: ours (`where`), and ONNX Runtime's."""

    ours: float
    onnxruntime: float
    where: str

    def record(self, float32: float, tolerance: float) -> LoweringRecord:
        """Of a compiled model that passed; `float32`: how far it is from ONNX Runtime."""
        return LoweringRecord(
            max_rel=self.ours, tolerance=tolerance, passed=True, decided_in="float64", float32_max_rel=_finite(float32),
            float64_max_rel=self.ours, reference_float64_max_rel=_finite(self.onnxruntime),
        )  # fmt: skip


def judge(referee: Referee, wanted: Sequence[Outputs], found: Sequence[Outputs]) -> Verdict:
    """`wanted` are ONNX Runtime's outputs, `found` the compiled model's, sample by sample. Raises as `truths`."""
    ours, onnxruntime, where = 0.0, 0.0, ""
    for truth, theirs, own in zip(referee.truths(), wanted, found, strict=True):
        for name, array in truth.items():
            error = max_relative(array, own[name])
            ours, where = (error, name) if error > ours else (ours, where)
            onnxruntime = max(onnxruntime, max_relative(array, theirs[name]))
    return Verdict(ours, onnxruntime, where)


def _finite(error: float) -> float | None:
    """None where integers differ, which is no distance."""
    return error if math.isfinite(error) else None
