"""Whole models compiled to WebAssembly beside onnxruntime-web in one interleaved run, on one thread in Node (V8).

    python -m benchmarks.wasm_models FOLDER/tv_resnet18.onnx.gz FOLDER/tv_mobilenet_v2.onnx.gz crepe-full
        efficientnet-lite0 minilm-l6 [--densities 1 .3 .25] [--input-shape input_ids=1,64 …] [--pattern block:8x1]
        [--relaxed-simd] [--blocks 30] [--warmup 3] [--keep rows.json] [--markdown table.md]

Models of the zoo by name, or graphs as files (missing weights are filled, see `graph_files`). Zeros are blocks by
magnitude, without refitting: speed is that of any such zeros, quality is not the point here. onnxruntime-web gets an
environment of its own in prunec's cache (npm, pinned) and always runs the dense model, which its kernels take as long
for as for one with zeros. `over_ort_web` is its time over ours, `over_own_dense` that of our dense model; medians of
ratios and 95 % intervals. V8 compiles functions anew while they run: hence a long warm-up.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

import prunec
from benchmarks.cpu_packages import Subject
from benchmarks.environments import NoEnvironment, environment_folder
from benchmarks.kept import KeptRows
from benchmarks.tables import line, markdown
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

REQUIREMENT = "onnxruntime-web@1.30.0"
ORT_WEB = "onnxruntime_web"
_HOST = Path(__file__).parent / "peers" / "onnxruntime_web.mjs"


@dataclass
class Row:
    model: str
    density: float
    pattern: str
    ms: float = 0.0
    ort_web_ms: float = 0.0
    over_ort_web: str = ""
    over_own_dense: str = ""
    error: str = ""
    code_kb: float = 0.0
    note: str = ""


class OrtWebRunner:
    """A `Runner` for .onnx files, in a Node process that times itself."""

    def load(self, model: Path, feeds: Mapping[str, np.ndarray], *, threads: int) -> None:
        self._files = tempfile.TemporaryDirectory(prefix="prunec-ort-web-")
        inputs = []
        for number, (name, array) in enumerate(feeds.items()):
            file = Path(self._files.name, f"input{number}")
            file.write_bytes(np.ascontiguousarray(array).tobytes())
            inputs.append({"name": name, "dtype": array.dtype.name, "shape": array.shape, "file": str(file)})
        self._process = subprocess.Popen(["node", str(_HOST)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        request = {"op": "load", "package": str(npm_folder()), "model": str(model), "inputs": inputs}
        self._versions: dict[str, str] = self._ask(request)["versions"]

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline() or '{"error": "the process ended"}')
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def run(self) -> object:
        return self.time()

    def time(self) -> int:
        return int(self._ask({"op": "time"})["ns"])

    def peak_rss_bytes(self) -> int:
        return int(self._ask({"op": "end"})["peak_rss_bytes"])

    def versions(self) -> dict[str, str]:
        return self._versions


def npm_folder() -> Path:
    """Where onnxruntime-web is installed, first installed where it is not. Raises NoEnvironment."""
    folder = environment_folder("onnxruntime-web", [REQUIREMENT])
    if not (folder / "node_modules" / "onnxruntime-web" / "package.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "package.json").write_text('{"private": true}\n', encoding="utf-8")
        command = ["npm", "install", "--no-audit", "--no-fund", "--silent", REQUIREMENT]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NoEnvironment(f"npm could not install {REQUIREMENT}: {done.stderr.strip()[-200:]}")
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description="Whole models in WebAssembly, beside onnxruntime-web.")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--densities", type=float, nargs="+", default=[1.0, 0.3, 0.25])
    parser.add_argument("--input-shape", action="append", default=[], metavar="NAME=1,64")
    parser.add_argument("--pattern", default="block:8x1")
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
                key = (subject.name, density, REQUIREMENT, *options)
                yield from kept.rows(key, partial(rows_of, subject, density, Path(folder), arguments))


def rows_of(subject: Subject, density: float, folder: Path, arguments: argparse.Namespace) -> Sequence[Row]:
    """One row; where the model cannot be compiled, why."""
    row = Row(subject.name, density, arguments.pattern)
    isa = RELAXED_WASM if arguments.relaxed_simd else WASM
    try:
        pruned = subject.source if density == 1 else _pruned(subject, density, folder)
        modules = {OWN: pruned} if density == 1 else {OWN: pruned, OWN_DENSE: subject.source}
        built = {}
        for name, path in modules.items():
            out = folder / f"{name}-{density}"
            built[name] = build(canonicalise(ir.load(path)), isa, out, {}, name="model").folder
        row.error = f"{check(pruned, built[OWN], [subject.feeds]).max_rel:.1e}"
        contenders = [Contender(name, path, "wasm-node") for name, path in built.items()]
        contenders.append(Contender(ORT_WEB, subject.source, "benchmarks.wasm_models:OrtWebRunner"))
        found = measure(contenders, subject.feeds, blocks=arguments.blocks, warmup_s=arguments.warmup, subject=OWN)
    except PrunecError as reason:
        row.note = str(reason.diagnostic)
        return [row]
    row.ms, row.ort_web_ms = found.contenders[OWN].p50_ms, found.contenders[ORT_WEB].p50_ms
    row.over_ort_web, row.over_own_dense = _over(found, ORT_WEB), _over(found, OWN_DENSE)
    row.code_kb = (built[OWN] / MODULE).stat().st_size / 1e3
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
