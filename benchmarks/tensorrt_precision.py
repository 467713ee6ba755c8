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
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx_ir as ir

import prunec.models as zoo
from benchmarks.kept import KeptRows
from benchmarks.subject import Subject
from benchmarks.tables import line, markdown
from benchmarks.tensorrt_models import ELIGIBLE, EXPECTED, WORTHWHILE, add_arguments, opened, package
from prunec.backends.onnx.session import make_session, run
from prunec.diagnostics import GateError, PrunecError
from prunec.frontend.calibration import open_calibration
from prunec.verify.metrics import Agreement, max_relative
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


def errors(reference: ir.Model, lowered: ir.Model, batches: list[dict]) -> tuple[float, float]:  # type: ignore[type-arg]
    """(largest error over largest output, norm of the error over norm of the output), of the worst output."""
    first, second = make_session(reference), make_session(lowered, quantisers_as_written=True)
    largest: list[float] = []
    norms: dict[str, Agreement] = {}
    for feeds in batches:
        wanted, found = run(first, feeds), run(second, feeds)
        for name, array in wanted.items():
            largest.append(max_relative(array, found[name]))
            norms.setdefault(name, Agreement()).add(array, found[name])
    return max(largest), max(agreement.relative_error for agreement in norms.values())


def one(name: str, precision: str, layers: str, arguments: argparse.Namespace) -> Iterator[Row]:
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
        max_rel, l2_rel = errors(pruned, lowered, list(data.held_out()))
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
            max_rel=f"{max_rel:.1e}",
            l2_rel=f"{l2_rel:.1e}",
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
    add_arguments(parser)
    parser.add_argument("--precisions", nargs="+", choices=["fp16", "int8"], default=["fp16", "int8"])
    parser.add_argument("--layers", nargs="+", choices=[EXPECTED, WORTHWHILE, ELIGIBLE], default=[EXPECTED])
    parser.add_argument("--test-samples", type=int)
    parser.add_argument("--no-quality", action="store_true", help="errors only: do not judge by the metric")
    parser.add_argument("--keep", type=Path, help="a file of rows: those in it are not computed again")
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    kept, table, failed = KeptRows(Row, arguments.keep), [], 0
    for name in arguments.models:
        for layers in arguments.layers:
            for precision in arguments.precisions:
                key = (name, layers, precision, arguments.solver, arguments.samples, arguments.test_samples)
                key += (arguments.no_quality,)
                try:
                    table += kept.rows(key, partial(one, name, precision, layers, arguments))
                except (PrunecError, GateError) as refusal:
                    failed += 1
                    print(f"{name}, {layers}, {precision}: refused: {refusal.diagnostic}", flush=True)
                    continue
                print(line(table[-1]), flush=True)
                if arguments.markdown:
                    arguments.markdown.write_text(markdown(table), encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
