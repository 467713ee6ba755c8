"""Packages for TensorRT's sparse tensor cores: what is planned, what stays dense and why, what is proved without a GPU.

    python -m benchmarks.tensorrt_packages fashion-net crepe-tiny --samples 64 --test-samples 500
    python -m benchmarks.tensorrt_packages --graphs FOLDER tv_resnet50 hf_bert --samples 4
    … --layers worthwhile eligible           two rows each: the layers a compile takes by itself; all that can be 2:4
    … --keep FILE.json                       go on where it was interrupted
    … --rtx PYTHON --polygraphy COMMAND      an interpreter with TensorRT-RTX; Polygraphy's command line

Every model is compiled with `--target tensorrt-2:4 --no-build`. Where no layer is expected to be faster, all that can
be 2:4 are taken (`taken` says "all eligible"), unless `--layers` says which. Models of the zoo with data are judged by
their own metric on test data; graphs have seeded weights, so nothing is said about theirs.

`layers`: those with weights, and products of two activations. `proved`: planned weights that were counted, compressed
and decompressed bit for bit, and multiplied. `error`: outputs of the shipped graph, FP16 or INT8, against the pruned
FP32 model in ONNX Runtime, largest error over largest value. `RTX`: parsed and built ahead of time by TensorRT-RTX for
SM80 and SM89, which says that the graph is accepted and nothing about sparsity or speed. `Polygraphy`: planned
weights that its own check finds 2:4, and what it says of the others. No GPU is used: nothing here is about kernels or
speed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

import prunec.models as zoo
from benchmarks.subject import Subject
from benchmarks.tensorrt_command import add_package_arguments, fill_table
from benchmarks.tensorrt_models import opened, package
from benchmarks.tensorrt_tools import polygraphy, rtx
from prunec.api.results import Compiled


@dataclass(frozen=True)
class Row:
    model: str
    layers: int
    eligible: int
    worthwhile: int
    taken: str
    planned: int
    proved: int
    zeros: float | None
    left_dense: str
    fp32: str
    error: str
    solver: str
    metric: str | None
    dense: float | None
    pruned: float | None
    others: str | None
    rtx: str | None
    polygraphy: str | None
    seconds: float


KINDS = {
    "eligible, but": "eligible, not expected to be faster",
    "depthwise": "depthwise",
    "stem": "stem",
    "head": "head",
    "its weight is computed": "product of activations",
    "TensorRT looks for": "operator that TensorRT does not look at",
    "needs input channels": "channels no multiple of 4",
    "are no multiple": "channels no multiple of 4",
    "stays FP32": "FP32 island",
    "embedding": "embedding",
    "is shared with other nodes": "its weight is shared with other nodes",
}
"""Part of a reason → what it is called in the table."""


def reasons(found: Sequence[str]) -> str:
    """How many layers for which kind of reason, the most frequent first."""
    kinds = (next((kind for part, kind in KINDS.items() if part in reason), reason) for reason in found)
    return "; ".join(f"{count} {kind}" for kind, count in Counter(kinds).most_common())


def row(name: str, compiled: Compiled, taken: str, out: Path, arguments: argparse.Namespace) -> Row:
    """One package, as it says of itself, and what the tools say of it."""
    assert compiled.verification is not None and compiled.verification.lowering is not None
    record, patterns = compiled.verification.tensorrt, compiled.verification.patterns
    assert record is not None
    folder = out / "tensorrt"
    document = json.loads((folder / "sparsity.json").read_text())
    return Row(
        model=name,
        layers=len(document["layers"]),
        eligible=len(record.eligible),
        worthwhile=sum(layer["worthwhile"] for layer in document["layers"]),
        taken=taken,
        planned=len(record.planned_sparse),
        proved=record.weights_proved,
        zeros=None if patterns is None else patterns.zeros,
        left_dense=reasons([layer.reason for layer in record.left_dense]),
        fp32=", ".join(f"{count} {reason}" for reason, count in record.fp32_islands.items()),
        error=f"{compiled.verification.lowering.max_rel:.1e}",
        solver=arguments.solver,
        metric=None,
        dense=None,
        pruned=None,
        others=None,
        rtx=rtx(folder, arguments.rtx, record.smoke),
        polygraphy=polygraphy(arguments.polygraphy, folder) if arguments.polygraphy else None,
        seconds=0.0,
    )


def one(name: str, layers: str, arguments: argparse.Namespace) -> Iterator[Row]:
    """Compile one model in a folder that goes away."""
    start = time.process_time()
    with (
        tempfile.TemporaryDirectory(prefix="prunec-tensorrt-packages-") as place,
        opened(name, arguments.graphs) as source,
    ):
        out = Path(place, "out")
        how = {name: getattr(arguments, name) for name in ("solver", "samples", "precision")}
        compiled, taken = package(source, out, layers=layers, **how)
        found = replace(row(name, compiled, taken, out, arguments), seconds=time.process_time() - start)
        if arguments.no_quality or arguments.graphs is not None or zoo.entry(name).metric is None:
            yield found
            return
        subject = Subject(name, samples=arguments.samples, test_samples=arguments.test_samples, seed=0)
        values = subject.values(ir.load(out / "model.onnx"))
        others = [f"{k} {subject.dense_values[k]:.3f} → {v:.3f}" for k, v in values.items() if k != subject.metric]
        yield replace(
            found, metric=subject.metric, dense=subject.dense, pruned=values[subject.metric], others=", ".join(others)
        )


def main() -> int:
    parser = argparse.ArgumentParser(description="What packages for TensorRT hold, for many models.")
    add_package_arguments(parser)
    parser.add_argument("--precision", choices=["fp16", "int8"], default="fp16")
    parser.add_argument("--rtx", metavar="PYTHON", help="an interpreter that has TensorRT-RTX")
    parser.add_argument("--polygraphy", metavar="COMMAND")
    a = parser.parse_args()
    tools = (bool(a.rtx), bool(a.polygraphy))
    drawn = (a.precision, a.solver, a.samples, *tools, a.no_quality, a.test_samples)
    return fill_table(Row, itertools.product(a.models, a.layers), one, a, drawn)


if __name__ == "__main__":
    sys.exit(main())
