"""Packages for TensorRT's sparse tensor cores: what is planned, what stays dense and why, what is proved without a GPU.

    python -m benchmarks.tensorrt_packages fashion-net crepe-tiny --samples 64 --test-samples 500
    python -m benchmarks.tensorrt_packages --graphs FOLDER tv_resnet50 hf_bert --samples 4
    … --rtx PYTHON --polygraphy COMMAND      an interpreter with TensorRT-RTX; Polygraphy's command line

Every model is compiled with `--target tensorrt-2:4 --no-build` on few samples: quality is a first look,
not what prunec reaches. Where no layer is expected to be faster, all that can be 2:4 are taken (`taken` says "all
eligible"). Models of the zoo are judged by their own metric on test data; graphs have seeded weights, so nothing is
said about theirs.

`layers`: those with weights, and products of two activations. `proved`: planned weights that were counted, compressed
and decompressed bit for bit, and multiplied. `fp16 error`: outputs of the shipped FP16 graph against the pruned FP32
model in ONNX Runtime, largest error over largest value. `RTX`: parsed and built ahead of time by TensorRT-RTX for
SM80 and SM89, which says that the graph is accepted and nothing about sparsity or speed. `Polygraphy`: planned
weights that its own check finds 2:4 (it is slow, so only up to `POLYGRAPHY_UP_TO` weights). No GPU is used: nothing
here is about kernels or speed.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

import prunec.models as zoo
from benchmarks.graph_files import graph_files, read_graph
from benchmarks.subject import Subject
from benchmarks.tables import line, markdown
from prunec.api.compilation import compile as compile_model
from prunec.api.opening import open_model
from prunec.api.results import Compiled
from prunec.backends.base import Range
from prunec.backends.tensorrt.limits import parse_ranges
from prunec.backends.tensorrt.smoke import smoke
from prunec.diagnostics import PrunecError
from prunec.frontend.input_shapes import real_inputs
from prunec.graph.shapes import dims

TARGET = "tensorrt-2:4"
RANGES = {
    "ocr-rec": ["x=1x3x48x160:4x3x48x320:8x3x48x640"],
    "minilm-l6": ["input_ids=1x8:8x32:32x128", "attention_mask=1x8:8x32:32x128"],
}
LENGTHS = (16, 32, 64)
"""Of dynamic axes other than the batch, in graphs."""
POLYGRAPHY_UP_TO = 400_000


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
    fp16_error: str
    metric: str | None
    dense: float | None
    pruned: float | None
    rtx: str | None
    polygraphy: str | None
    seconds: float


@dataclass(frozen=True)
class Tools:
    rtx: str | None
    polygraphy: str | None


def ranges_of(model: ir.Model) -> dict[str, Range]:
    """A range for every dynamic input: the batch from 1 to 4, other axes from 16 to 64."""
    found: dict[str, Range] = {}
    for value in real_inputs(model):
        shape = dims(value) or ()
        if all(isinstance(d, int) for d in shape):
            continue
        three = [
            tuple(
                d if isinstance(d, int) else (1, 2, 4)[i] if axis == 0 else LENGTHS[i] for axis, d in enumerate(shape)
            )
            for i in range(3)
        ]
        found[str(value.name)] = (three[0], three[1], three[2])
    return found


def build(
    path: Path, out: Path, ranges: dict[str, Range], arguments: argparse.Namespace, calib: str | None
) -> tuple[Compiled, str]:
    """The package, and which layers were taken."""
    options = {
        "target": TARGET, "build": False, "measure": False, "solver": arguments.solver, "samples": arguments.samples,
        "calib": calib, "shape_ranges": ranges, "output": out, "cache": False,
    }  # fmt: skip
    try:
        return compile_model(path, **options), "worthwhile"  # type: ignore[arg-type]
    except PrunecError as refusal:
        if refusal.diagnostic.code != "PC225":
            raise
    return compile_model(path, **options, include=["*"]), "all eligible"  # type: ignore[arg-type]


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
}
"""Part of a reason → what it is called in the table."""


def reasons(found: Sequence[str]) -> str:
    """How many layers for which kind of reason, the most frequent first."""
    kinds = (next((kind for part, kind in KINDS.items() if part in reason), reason) for reason in found)
    return "; ".join(f"{count} {kind}" for kind, count in Counter(kinds).most_common())


def polygraphy(command: str, model: Path, planned: Sequence[str], weights: dict[str, str]) -> str:
    """How many of the planned weights Polygraphy calls 2:4. Its exit code says nothing, its text does."""
    done = subprocess.run([command, "inspect", "sparsity", str(model)], capture_output=True, text=True, check=False)
    said = set(re.findall(r"Found sparse tensor: (\S+)", done.stdout + done.stderr))
    agreed = sum(weights[node] in said for node in planned)
    return f"{agreed} of {len(planned)}"


def row(name: str, compiled: Compiled, taken: str, out: Path, tools: Tools, seconds: float) -> Row:
    """One package, as it says of itself, and what the tools say of it."""
    assert compiled.verification is not None and compiled.verification.lowering is not None
    record, patterns = compiled.verification.tensorrt, compiled.verification.patterns
    assert record is not None
    folder = out / "tensorrt"
    document = json.loads((folder / "sparsity.json").read_text())
    said = smoke(folder, tools.rtx) if tools.rtx else record.smoke
    proofs = [layer["proof"] for layer in document["layers"] if "proof" in layer]
    weights = sum(proof["runs_of_four"] * 4 for proof in proofs)
    names = {layer["node"]: layer["tensor"] for layer in document["layers"]}
    checked = None
    if tools.polygraphy and weights <= POLYGRAPHY_UP_TO:
        checked = polygraphy(tools.polygraphy, folder / "model.onnx", record.planned_sparse, names)
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
        fp16_error=f"{compiled.verification.lowering.max_rel:.1e}",
        metric=None,
        dense=None,
        pruned=None,
        rtx=None if said is None else "yes" if said.passed else "no: " + "; ".join(said.errors)[:150],
        polygraphy=checked,
        seconds=seconds,
    )


def one(name: str, arguments: argparse.Namespace) -> Row:
    """Compile one model in a folder that goes away."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="prunec-tensorrt-packages-") as place:
        out, tools = Path(place, "out"), Tools(arguments.rtx, arguments.polygraphy)
        if arguments.graphs is not None:
            (file,) = [path for path in graph_files(arguments.graphs) if path.name.split(".onnx")[0] == name]
            model = read_graph(file)
            source = Path(place, f"{name}.onnx")
            ir.save(model, source)
            compiled, taken = build(source, out, ranges_of(model), arguments, None)
            return row(name, compiled, taken, out, tools, time.perf_counter() - start)
        entry = zoo.get(name)
        ranges = parse_ranges(RANGES[name]) if name in RANGES else ranges_of(open_model(entry.path).canonical)
        compiled, taken = build(entry.path, out, ranges, arguments, entry.calib)
        found = row(name, compiled, taken, out, tools, time.perf_counter() - start)
        if arguments.no_quality:
            return found
        subject = Subject(name, samples=arguments.samples, test_samples=arguments.test_samples, seed=0)
        pruned = subject.judge(ir.load(out / "model.onnx"))
        return replace(found, metric=subject.metric, dense=subject.dense, pruned=pruned)


def main() -> int:
    parser = argparse.ArgumentParser(description="What packages for TensorRT hold, for many models.")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--graphs", type=Path, help="the models are files of this folder, not of the zoo")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--test-samples", type=int)
    parser.add_argument("--solver", default="fast")
    parser.add_argument("--no-quality", action="store_true", help="do not judge the models: a packages' table only")
    parser.add_argument("--rtx", metavar="PYTHON", help="an interpreter that has TensorRT-RTX")
    parser.add_argument("--polygraphy", metavar="COMMAND")
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    table: list[Row] = []
    failed = 0
    for name in arguments.models:
        try:
            table.append(one(name, arguments))
        except PrunecError as refusal:
            failed += 1
            print(f"{name}: refused: {refusal.diagnostic}", flush=True)
            continue
        print(line(table[-1]), flush=True)
        if arguments.markdown:
            arguments.markdown.write_text(markdown(table), encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
