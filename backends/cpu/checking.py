"""The compiled model against ONNX Runtime on the pruned model, sample by sample. Needs no TVM.

Where the two disagree in float32, float64 decides (`referee`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx_ir as ir

from prunec.backends.cpu.compiled import CompiledModel
from prunec.backends.cpu.referee import Referee, judge
from prunec.backends.onnx.session import make_session, run
from prunec.diagnostics import GateError
from prunec.frontend.calibration import open_calibration
from prunec.frontend.input_shapes import real_inputs
from prunec.graph.shapes import dims
from prunec.passes.quantise.strip import is_qdq
from prunec.verify.metrics import max_relative
from prunec.verify.records import LoweringRecord
from prunec.verify.reference import NotEvaluable

TOLERANCE = 1e-5
"""Of the range of each output, in float32."""
INT8_TOLERANCE = 1 / 255
"""The same of a quantised model: one step, if 8 bits held that range."""
LEEWAY = 2.0
"""Times what ONNX Runtime differs from itself, with and without its fusions, where that is more.

Floating-point operators between quantisers agree in all but the last bits, which now and then decide between two steps;
a LayerNorm then spreads one step over a row, and after some layers the steps taken are others.
"""
SAMPLES = 4


def samples_for(
    batches: Sequence[Mapping[str, np.ndarray]], ready: Sequence[ir.Model], seed: int = 0
) -> list[list[dict[str, np.ndarray]]]:
    """For every shape the first samples of the batches, where they have that shape, else one that is made up."""
    return [
        [feeds for feeds in one_by_one(batches, each) if _fits(feeds, each)]
        or [next(iter(open_calibration(None, each, samples=2, seed=seed).held_out()))]
        for each in ready
    ]


def _fits(feeds: Mapping[str, np.ndarray], ready: ir.Model) -> bool:
    return all(feeds[value.name or ""].shape == dims(value) for value in real_inputs(ready))


def one_by_one(batches: Sequence[Mapping[str, np.ndarray]], ready: ir.Model) -> list[dict[str, np.ndarray]]:
    """The first samples of the batches, with the batch of the prepared model's inputs."""
    sizes = {value.name or "": _batch(value) for value in ready.graph.inputs}
    found: list[dict[str, np.ndarray]] = []
    for feeds in batches:
        count = min((len(a) // size for name, a in feeds.items() if (size := sizes[name]) is not None), default=1)
        for number in range(min(count, SAMPLES)):
            found.append({name: _cut(array, sizes[name], number) for name, array in feeds.items()})
    return found[:SAMPLES]


def _batch(value: ir.Value) -> int | None:
    first = None if value.shape is None or not len(value.shape) else value.shape[0]
    return first if isinstance(first, int) else None


def _cut(array: np.ndarray, size: int | None, number: int) -> np.ndarray:
    return array if size is None else np.ascontiguousarray(array[number * size : (number + 1) * size])


def compare(
    reference: ir.Model | Path, folder: Path, samples: Sequence[Mapping[str, np.ndarray]], threads: int
) -> LoweringRecord:
    """Largest error of the compiled model in `folder` over all samples and outputs; integers have to be equal.

    Raises:
        GateError PC526: above the tolerance, of ONNX Runtime and of float64.
    """
    compiled = CompiledModel(folder, threads=threads)
    record = compare_model(reference, compiled, samples, threads)
    compiled.close()
    return record


class Runs(Protocol):
    """A compiled model."""

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name."""


def compare_model(
    reference: ir.Model | Path,
    compiled: Runs,
    samples: Sequence[Mapping[str, np.ndarray]],
    threads: int,
    referee: Referee | None = None,
) -> LoweringRecord:
    """As `compare`, for a model that is loaded. `referee`: of the same reference and samples, if there is one already.

    Where ONNX Runtime disagrees, float64 decides. A quantised model has no referee but two references, as it is written
    (floating-point sums between quantisers) and as ONNX Runtime fuses it (sums of integers): the nearer one counts.
    """
    if is_qdq(ir.load(reference) if isinstance(reference, Path) else reference):
        return _compare_quantised(reference, compiled, samples, threads)
    session = make_session(reference, threads=threads)
    wanted, found = [run(session, feeds) for feeds in samples], [compiled.run(feeds) for feeds in samples]
    del session  # its memory is the referee's
    errors = [(max_relative(a[name], b[name]), name) for a, b in zip(wanted, found, strict=True) for name in a]
    worst, where = max(errors, default=(0.0, ""), key=lambda each: each[0])
    if worst <= TOLERANCE:
        return LoweringRecord(max_rel=worst, tolerance=TOLERANCE, passed=True, decided_in="float32")
    try:
        verdict = judge(referee or Referee(reference, samples), wanted, found)
    except NotEvaluable as reason:
        raise _refusal(worst, TOLERANCE, where, f"; not decided in float64: {reason}") from None
    if not verdict.ours <= TOLERANCE:
        note = f" against float64; against ONNX Runtime by {worst:.1e}, which is {verdict.onnxruntime:.1e} off itself"
        raise _refusal(verdict.ours, TOLERANCE, verdict.where, note)
    return verdict.record(worst, TOLERANCE)


def _compare_quantised(
    reference: ir.Model | Path, compiled: Runs, samples: Sequence[Mapping[str, np.ndarray]], threads: int
) -> LoweringRecord:
    session, fused = (make_session(reference, threads=threads, optimise=is_fused) for is_fused in (False, True))
    worst, where, tolerance = 0.0, "", INT8_TOLERANCE
    for feeds in samples:
        wanted, other, found = run(session, feeds), run(fused, feeds), compiled.run(feeds)
        for name, array in wanted.items():
            error = min(max_relative(one, found[name]) for one in (array, other[name]))
            worst, where = (error, name) if error > worst else (worst, where)
            tolerance = max(tolerance, LEEWAY * max_relative(array, other[name]))
    if not worst <= tolerance:
        raise _refusal(worst, tolerance, where)
    return LoweringRecord(max_rel=worst, tolerance=tolerance, passed=True)


def _refusal(error: float, tolerance: float, where: str, note: str = "") -> GateError:
    message = f"an output of the compiled model differs by {error:.1e} of its range, more than {tolerance:.0e}{note}"
    return GateError("PC526", message, where=where, hint="report this model; --target onnx has nothing compiled")
