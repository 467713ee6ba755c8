"""Whole models compiled to WebAssembly beside onnxruntime-web in one interleaved run, on one thread.

    python -m benchmarks.wasm_models FOLDER/tv_resnet18.onnx.gz FOLDER/tv_mobilenet_v2.onnx.gz crepe-full
        efficientnet-lite0 minilm-l6 [--densities 1 .3 .25] [--input-shape input_ids=1,64 …] [--pattern block:8x1]
        [--precision int8] [--hosts node chromium wasmtime] [--relaxed-simd] [--blocks 30] [--warmup 3]
        [--keep rows.json] [--markdown table.md]

Models of the zoo by name, or graphs as files (missing weights are filled, see `graph_files`). Zeros are blocks by
magnitude, without refitting: speed is that of any such zeros, quality is not the point here. onnxruntime-web gets an
environment of its own in prunec's cache (npm, pinned) and always runs the dense model, which its kernels take as long
for as for one with zeros. `host` is the engine of both: Node and Chromium (without a window) have V8, wasmtime has
Cranelift, and onnxruntime-web, which it cannot run, is timed in Node beside it. `over_ort_web` is its time over ours,
`over_own_dense` that of our dense model; medians of ratios and 95 % intervals. V8 compiles functions anew while they
run: hence a long warm-up.

With `--precision int8` ours are of a quantised graph (8 bits by the smallest and largest number of 8 made-up samples,
blocks of 4×4), `over_own_float` is the time of our dense model in float32, `over_ort_web` that of onnxruntime-web on it
and `over_ort_web_int8` on the dense quantised graph.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import onnx_ir as ir

import prunec
from benchmarks.cpu_int8 import Subject as quantised_subject
from benchmarks.cpu_packages import Subject
from benchmarks.kept import KeptRows
from benchmarks.tables import line, markdown
from benchmarks.wasm_hosts import HOSTS, REQUIREMENT, npm_folder
from prunec.api.quantising import weight_bits
from prunec.backends.cpu.isa import RELAXED_WASM, WASM
from prunec.backends.wasm.building import build
from prunec.backends.wasm.layout import MODULE
from prunec.backends.wasm.target import check
from prunec.diagnostics import PrunecError
from prunec.frontend.input_shapes import parse_input_shapes
from prunec.measure.contender import OWN, OWN_DENSE, Contender
from prunec.measure.results import Measurements
from prunec.measure.run import measure
from prunec.passes.canonicalise import canonicalise

ORT_WEB, ORT_WEB_INT8, OWN_FLOAT = "onnxruntime_web", "onnxruntime_web_int8", "prunec_float"
INT8_PATTERN = "block:4x4"


@dataclass
class Row:
    model: str
    density: float
    pattern: str
    host: str
    ms: float = 0.0
    ort_web_ms: float = 0.0
    over_ort_web: str = ""
    over_own_dense: str = ""
    over_own_float: str = ""
    over_ort_web_int8: str = ""
    error: str = ""
    code_kb: float = 0.0
    note: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(description="Whole models in WebAssembly, beside onnxruntime-web.")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--densities", type=float, nargs="+", default=[1.0, 0.3, 0.25])
    parser.add_argument("--input-shape", action="append", default=[], metavar="NAME=1,64")
    parser.add_argument("--pattern", default="block:8x1")
    parser.add_argument("--precision", choices=("int8",), help="default: float32")
    parser.add_argument("--hosts", nargs="+", choices=HOSTS, default=["node"])
    parser.add_argument("--relaxed-simd", action="store_true")
    parser.add_argument("--blocks", type=int, default=30, help="of runs, per contender")
    parser.add_argument("--warmup", type=float, default=3.0, help="seconds")
    parser.add_argument("--keep", type=Path, help="a file of rows: those in it are not computed again")
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    if arguments.precision is not None:
        arguments.pattern = INT8_PATTERN
    npm_folder()
    rows = []
    for row in all_rows(arguments):
        rows.append(row)
        print(line(row), flush=True)
        if arguments.markdown:
            arguments.markdown.write_text(markdown(rows), encoding="utf-8")
    return 0


def all_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    shapes = parse_input_shapes(arguments.input_shape)
    kept = KeptRows(Row, arguments.keep)
    options = (arguments.pattern, arguments.relaxed_simd, arguments.blocks, arguments.warmup, *arguments.input_shape)
    make = modules_of if arguments.precision is None else int8_modules_of
    for model in arguments.models:
        with tempfile.TemporaryDirectory(prefix="prunec-benchmark-") as folder:
            subject = Subject(model, shapes, Path(folder), arguments.pattern)
            for density in arguments.densities:
                modules = cache(partial(make, subject, density, Path(folder), arguments.relaxed_simd))
                for host in arguments.hosts:
                    key = (subject.name, density, host, REQUIREMENT, *options)
                    yield from kept.rows(key, partial(rows_of, subject, density, host, modules, arguments))


@dataclass(frozen=True)
class Modules:
    """Compiled models by the names of contenders, and how far the first is from ONNX Runtime.

    `graphs`: what onnxruntime-web runs, by the names of contenders.
    """

    folders: dict[str, Path]
    error: float
    graphs: dict[str, Path]


def modules_of(subject: Subject, density: float, folder: Path, is_relaxed: bool) -> Modules:
    """Raises PrunecError where the model cannot be compiled, or computes something else."""
    folder = Path(tempfile.mkdtemp(dir=folder))  # of its own: what failed may be tried again
    pruned = subject.source if density == 1 else _pruned(subject, density, folder)
    sources = {OWN: pruned} if density == 1 else {OWN: pruned, OWN_DENSE: subject.source}
    folders = {name: _built(ir.load(path), folder / name, is_relaxed) for name, path in sources.items()}
    error = check(pruned, folders[OWN], [subject.feeds]).max_rel
    return Modules(folders, error, {ORT_WEB: subject.source})


def int8_modules_of(subject: Subject, density: float, folder: Path, is_relaxed: bool) -> Modules:
    """As `modules_of`, of the quantised graph."""
    folder = Path(tempfile.mkdtemp(dir=folder))
    given = quantised_subject(str(subject.source), {}, folder, weight_bits(relaxed_simd=is_relaxed))
    sources = {OWN: given.quantised(density), OWN_FLOAT: ir.load(subject.source)}
    if density < 1:
        sources[OWN_DENSE] = given.quantised(1.0)
    folders = {name: _built(model, folder / name, is_relaxed) for name, model in sources.items()}
    error = check(given.graph_file(density), folders[OWN], [subject.feeds]).max_rel
    return Modules(folders, error, {ORT_WEB: subject.source, ORT_WEB_INT8: given.graph_file(1.0)})


def _built(model: ir.Model, out: Path, is_relaxed: bool) -> Path:
    return build(canonicalise(model), RELAXED_WASM if is_relaxed else WASM, out, {}, name="model").folder


def rows_of(
    subject: Subject, density: float, host: str, modules: Callable[[], Modules], arguments: argparse.Namespace
) -> Sequence[Row]:
    """One row; where the model cannot be compiled or timed, why."""
    row = Row(subject.name, density, arguments.pattern, host)
    try:
        made = modules()
        contenders = [Contender(name, path, HOSTS[host].own) for name, path in made.folders.items()]
        contenders += [Contender(name, path, HOSTS[host].ort) for name, path in made.graphs.items()]
        found = measure(contenders, subject.feeds, blocks=arguments.blocks, warmup_s=arguments.warmup, subject=OWN)
    except PrunecError as reason:
        row.note = str(reason.diagnostic)
        return [row]
    row.error = f"{made.error:.1e}"
    row.ms, row.ort_web_ms = found.contenders[OWN].p50_ms, found.contenders[ORT_WEB].p50_ms
    row.over_ort_web, row.over_own_dense = _over(found, ORT_WEB), _over(found, OWN_DENSE)
    row.over_own_float, row.over_ort_web_int8 = _over(found, OWN_FLOAT), _over(found, ORT_WEB_INT8)
    row.code_kb = (made.folders[OWN] / MODULE).stat().st_size / 1e3
    return [row]


def _pruned(subject: Subject, density: float, folder: Path) -> Path:
    out = folder / f"pruned-{density}"
    prunec.compile(
        subject.source, target="onnx", pattern=subject.pattern, sparsity=1 - density, solver="magnitude",
        compensate=False, samples=8, output=out, cache=False, measure=False,
    )  # fmt: skip
    return out / "model.onnx"


def _over(found: Measurements, name: str) -> str:
    speedup = found.speedup.get(f"vs_{name}")
    return "" if speedup is None else f"{speedup.median:.2f} ({speedup.ci95[0]:.2f} to {speedup.ci95[1]:.2f})"


if __name__ == "__main__":
    sys.exit(main())
