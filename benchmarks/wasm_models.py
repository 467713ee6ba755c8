"""Whole models compiled to WebAssembly beside onnxruntime-web in one interleaved run, on one thread.

    python -m benchmarks.wasm_models FOLDER/tv_resnet18.onnx.gz FOLDER/tv_mobilenet_v2.onnx.gz crepe-full
        efficientnet-lite0 minilm-l6 [--densities 1 .3 .25] [--input-shape input_ids=1,64 …] [--pattern block:8x1]
        [--hosts node chromium wasmtime] [--relaxed-simd] [--blocks 30] [--warmup 3] [--keep rows.json]
        [--markdown table.md]

Models of the zoo by name, or graphs as files (missing weights are filled, see `graph_files`). Zeros are blocks by
magnitude, without refitting: speed is that of any such zeros, quality is not the point here. onnxruntime-web gets an
environment of its own in prunec's cache (npm, pinned) and always runs the dense model, which its kernels take as long
for as for one with zeros. `host` is the engine of both: Node and Chromium (without a window) have V8, wasmtime has
Cranelift, and onnxruntime-web, which it cannot run, is timed in Node beside it. `over_ort_web` is its time over ours,
`over_own_dense` that of our dense model; medians of ratios and 95 % intervals. V8 compiles functions anew while they
run: hence a long warm-up.
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
from benchmarks.cpu_packages import Subject
from benchmarks.kept import KeptRows
from benchmarks.tables import line, markdown
from benchmarks.wasm_hosts import HOSTS, REQUIREMENT, npm_folder
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

ORT_WEB = "onnxruntime_web"


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
    error: str = ""
    code_kb: float = 0.0
    note: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(description="Whole models in WebAssembly, beside onnxruntime-web.")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--densities", type=float, nargs="+", default=[1.0, 0.3, 0.25])
    parser.add_argument("--input-shape", action="append", default=[], metavar="NAME=1,64")
    parser.add_argument("--pattern", default="block:8x1")
    parser.add_argument("--hosts", nargs="+", choices=HOSTS, default=["node"])
    parser.add_argument("--relaxed-simd", action="store_true")
    parser.add_argument("--blocks", type=int, default=30, help="of runs, per contender")
    parser.add_argument("--warmup", type=float, default=3.0, help="seconds")
    parser.add_argument("--keep", type=Path, help="a file of rows: those in it are not computed again")
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
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
    for model in arguments.models:
        with tempfile.TemporaryDirectory(prefix="prunec-benchmark-") as folder:
            subject = Subject(model, shapes, Path(folder), arguments.pattern)
            for density in arguments.densities:
                modules = cache(partial(modules_of, subject, density, Path(folder), arguments.relaxed_simd))
                for host in arguments.hosts:
                    key = (subject.name, density, host, REQUIREMENT, *options)
                    yield from kept.rows(key, partial(rows_of, subject, density, host, modules, arguments))


@dataclass(frozen=True)
class Modules:
    """Compiled models by the names of contenders, and how far the first is from ONNX Runtime."""

    folders: dict[str, Path]
    error: float


def modules_of(subject: Subject, density: float, folder: Path, is_relaxed: bool) -> Modules:
    """Raises PrunecError where the model cannot be compiled, or computes something else."""
    folder = Path(tempfile.mkdtemp(dir=folder))  # of its own: what failed may be tried again
    pruned = subject.source if density == 1 else _pruned(subject, density, folder)
    sources = {OWN: pruned} if density == 1 else {OWN: pruned, OWN_DENSE: subject.source}
    built = {}
    for name, path in sources.items():
        out = folder / f"{name}-{density}"
        built[name] = build(canonicalise(ir.load(path)), RELAXED_WASM if is_relaxed else WASM, out, {}, name="model")
    folders = {name: own.folder for name, own in built.items()}
    return Modules(folders, check(pruned, folders[OWN], [subject.feeds]).max_rel)


def rows_of(
    subject: Subject, density: float, host: str, modules: Callable[[], Modules], arguments: argparse.Namespace
) -> Sequence[Row]:
    """One row; where the model cannot be compiled or timed, why."""
    row = Row(subject.name, density, arguments.pattern, host)
    try:
        made = modules()
        contenders = [Contender(name, path, HOSTS[host].own) for name, path in made.folders.items()]
        contenders.append(Contender(ORT_WEB, subject.source, HOSTS[host].ort))
        found = measure(contenders, subject.feeds, blocks=arguments.blocks, warmup_s=arguments.warmup, subject=OWN)
    except PrunecError as reason:
        row.note = str(reason.diagnostic)
        return [row]
    row.error = f"{made.error:.1e}"
    row.ms, row.ort_web_ms = found.contenders[OWN].p50_ms, found.contenders[ORT_WEB].p50_ms
    row.over_ort_web, row.over_own_dense = _over(found, ORT_WEB), _over(found, OWN_DENSE)
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
