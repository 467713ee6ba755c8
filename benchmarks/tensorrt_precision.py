"""What FP16 and INT8 cost in packages for TensorRT, in ONNX Runtime without a GPU.

    python -m benchmarks.tensorrt_precision fashion-net crepe-tiny [--precisions fp16 int8] [--layers eligible]
        [--solver fast] [--samples N] [--test-samples N] [--no-quality] [--keep F.json] [--markdown F]

Each package is compiled as users compile it, and its graph is held against the pruned FP32 model beside it: on held-out
calibration samples (`max_rel`: largest error over largest output; `l2_rel`: norm of the error over norm of the output;
the one that `allowed` is about stands with it) and on the test data of the model's metric. Ranges and scales come from
other calibration samples. `proved`: weights that were counted in the shipped bytes, INT8 ones too, compressed and
multiplied. `nodes in FP32` leaves casts out.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

import prunec.models as zoo
from benchmarks.subject import Subject
from benchmarks.tensorrt_command import add_package_arguments, fill_table
from benchmarks.tensorrt_models import opened, package
from prunec.backends.onnx.session import make_session, run
from prunec.backends.tensorrt.lower import errors
from prunec.frontend.calibration import open_calibration
from prunec.verify.user_metric import evaluate, load_metric


@dataclass(frozen=True)
class Row:
    model: str
    taken: str
    precision: str
    planned: int
    proved: int
    fp32: str
    max_rel: str
    l2_rel: str
    allowed: str
    metric: str | None
    dense: float | None
    pruned: float | None
    lowered: float | None


def one(name: str, layers: str, precision: str, arguments: argparse.Namespace) -> Iterator[Row]:
    with (
        tempfile.TemporaryDirectory(prefix="prunec-tensorrt-precision-") as place,
        opened(name, arguments.graphs) as source,
    ):
        out = Path(place, "out")
        compiled, taken = package(
            source, out, solver=arguments.solver, samples=arguments.samples, layers=layers, precision=precision
        )
        assert compiled.verification is not None
        record, lowering = compiled.verification.tensorrt, compiled.verification.lowering
        assert record is not None and lowering is not None
        pruned, lowered = ir.load(out / "model.onnx"), ir.load(out / "tensorrt/model.onnx")
        data = open_calibration(source.calib, pruned, samples=arguments.samples, seed=0, demanded=True)
        found = errors(pruned, lowered, list(data.held_out()))
        values: list[float | None] = [None, None, None]
        metric = None
        if not arguments.no_quality and arguments.graphs is None and zoo.entry(name).metric is not None:
            subject = Subject(name, samples=arguments.samples, test_samples=arguments.test_samples, seed=0)
            metric = subject.metric
            values = [subject.dense, subject.judge(pruned), judged(name, lowered, metric, arguments.test_samples)]
        yield Row(
            model=name,
            taken=taken,
            precision=precision,
            planned=len(record.planned_sparse),
            proved=record.weights_proved,
            fp32=", ".join(f"{count} {reason}" for reason, count in record.fp32_islands.items()),
            max_rel=f"{max(found['max_rel'].values()):.1e}",
            l2_rel=f"{max(found['l2_rel'].values()):.1e}",
            allowed=f"{lowering.bounds} {lowering.tolerance:g}",
            metric=metric,
            dense=values[0],
            pruned=values[1],
            lowered=values[2],
        )


def judged(name: str, model: ir.Model, metric: str, samples: int | None) -> float:
    """The zoo's metric of a graph with quantisers, which compute as they are written."""
    session = make_session(model, quantisers_as_written=True)
    chosen = zoo.get(name).metric
    assert chosen is not None
    return evaluate(load_metric(chosen), lambda feeds: run(session, feeds), samples=samples)[metric]


def main() -> int:
    parser = argparse.ArgumentParser(description="What FP16 and INT8 cost in packages for TensorRT.")
    add_package_arguments(parser)
    parser.add_argument("--precisions", nargs="+", choices=["fp16", "int8"], default=["fp16", "int8"])
    a = parser.parse_args()
    cases = itertools.product(a.models, a.layers, a.precisions)
    return fill_table(Row, cases, one, a, (a.solver, a.samples, a.test_samples, a.no_quality))


if __name__ == "__main__":
    sys.exit(main())
