"""Whole models compiled for this CPU: size, speed against four contenders, and what a compile takes.

    python -m benchmarks.cpu_models fashion-net crepe-full ../shared/graphs/tv_resnet18.onnx.gz [--sparsity .5 .75]
    python -m benchmarks.cpu_models --coverage ../shared/graphs

Models of the zoo by name, or graphs as files (missing weights are filled, see `graph_files`). Zeros are blocks of 16×1
by magnitude, without refitting: speed is that of any such zeros, quality is not the point here. Every row is a compile
with its own measurement (`prunec.measure`: processes of their own, interleaved, 95 % intervals). `dense`: the dense
model in generated code over ONNX Runtime's; `sparse`: the sparse one over the same; `twin`: over the dense one in
generated code. `error` is against ONNX Runtime on the pruned model; memory is that of the two processes. `--coverage`
generates nothing and says of every graph in a folder whether all of it has code, and what is missing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

import prunec
import prunec.models as zoo
from benchmarks.graph_files import graph_files, read_graph
from benchmarks.tables import line, markdown
from prunec.backends.cpu.isa import host_isa
from prunec.backends.cpu.lower.prepare import prepare
from prunec.backends.cpu.parts import split_model
from prunec.diagnostics import PrunecError
from prunec.frontend.input_shapes import parse_input_shapes
from prunec.measure.ratio import ratio
from prunec.measure.results import Measurements, Speedup


@dataclass
class Row:
    model: str
    zeros: float
    threads: int
    dense: str
    sparse: str
    twin: str
    error: str
    compile_s: float
    package_mib: float
    load_ms: float
    memory_mib: str


@dataclass
class Coverage:
    graph: str
    nodes: int
    verdict: str
    parts: int
    missing: str


def main() -> int:
    parser = argparse.ArgumentParser(description="Whole models in generated code.")
    parser.add_argument("models", nargs="*")
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.75])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--input-shape", action="append", default=[], metavar="NAME=1,64")
    parser.add_argument("--coverage", type=Path, metavar="FOLDER")
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    rows: list[Row | Coverage] = []
    todo = ((m, s, t) for m in arguments.models for s in arguments.sparsity for t in arguments.threads)
    for model, sparsity, threads in todo:
        rows.append(compiled(model, sparsity, threads, arguments.input_shape))
        print(line(rows[-1]), flush=True)
    for path in graph_files(arguments.coverage) if arguments.coverage else ():
        rows.append(covered(path))
        print(line(rows[-1]), flush=True)
    if arguments.markdown and rows:
        arguments.markdown.write_text(markdown(rows), encoding="utf-8")
    return 0


def compiled(model: str, sparsity: float, threads: int, shapes: list[str]) -> Row:
    """One compile, measured."""
    with tempfile.TemporaryDirectory(prefix="prunec-benchmark-") as name:
        folder = Path(name)
        if Path(model).exists():
            source = folder / "model.onnx"
            ir.save(read_graph(Path(model)), source)
        else:
            source = zoo.get(model).path
        start = time.perf_counter()
        found = prunec.compile(
            source, target="cpu", pattern="block:16x1", sparsity=sparsity, solver="magnitude", compensate=False,
            samples=8, threads=threads, output=folder / "out", cache=False,
            input_shapes=parse_input_shapes(shapes) if shapes else None,
        )  # fmt: skip
        taken = time.perf_counter() - start
        size = sum(path.stat().st_size for path in (folder / "out" / "cpu").rglob("*") if path.is_file())
    measured, verification = found.measurements, found.verification
    assert measured is not None and verification is not None and verification.lowering is not None
    own, ort = measured.contenders["prunec"], measured.contenders["pruned_onnxruntime"]
    return Row(
        model=Path(model).name, zeros=sparsity, threads=threads, dense=spelled(dense_ratio(measured)),
        sparse=spelled(measured.speedup["vs_dense_onnxruntime"]), twin=spelled(measured.speedup["vs_prunec_dense"]),
        error=f"{verification.lowering.max_rel:.1e}", compile_s=taken, package_mib=size / 2**20,
        load_ms=(own.load_ms or 0.0) + (own.first_run_ms or 0.0),
        memory_mib=f"{own.peak_rss_mib} / {ort.peak_rss_mib}",
    )  # fmt: skip


def dense_ratio(measured: Measurements) -> Speedup:
    """The dense model: ONNX Runtime's time over that of generated code."""
    blocks = measured.distributions
    return ratio([list(blocks["dense_onnxruntime"])], [list(blocks["prunec_dense"])], seed=0)


def spelled(speedup: Speedup) -> str:
    low, high = speedup.ci95
    return f"{speedup.median:.2f} ({low:.2f}–{high:.2f})"


def covered(path: Path) -> Coverage:
    """Whether a graph is generated whole, in parts, or refused, and why."""
    name = path.name.removesuffix(".gz").removesuffix(".onnx")
    try:
        ready = prepare(read_graph(path))
        split = split_model(ready, host_isa())
    except PrunecError as refusal:
        return Coverage(name, 0, "refused", 0, str(refusal.diagnostic))
    reasons = Counter(f"{refusal.node.op_type}: {refusal.reason}" for refusal in split.refusals)
    missing = "; ".join(f"{count}× {reason}" for reason, count in reasons.most_common(4))
    verdict = "generated" if split.is_whole else "in parts"
    return Coverage(name, len(ready.graph), verdict, len(split.parts), missing)


if __name__ == "__main__":
    sys.exit(main())
