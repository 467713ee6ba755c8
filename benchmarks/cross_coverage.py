"""Dense models compiled for machines that are not this one, and compared with ONNX Runtime.

    python -m benchmarks.cross_coverage zoo [--target wasm] [--markdown table.md]

Models of the zoo by name or all of them, or ONNX files. Each is compiled as it is, with its free axes as in
`benchmarks.cpu_coverage`, and run on two inputs, those of the zoo where it has some: WebAssembly in wasmtime and in
Node. `error` is the largest difference of an output relative to its range; `code` is what is left of the module without
weights.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

import prunec.models as zoo
from benchmarks.cpu_coverage import named
from benchmarks.graph_files import graph_name, read_graph
from benchmarks.tables import line, markdown
from benchmarks.zoo_shapes import SHAPES
from prunec.backends.cpu.checking import samples_for
from prunec.backends.cpu.isa import WASM
from prunec.diagnostics import PrunecError
from prunec.frontend.calibration import open_calibration
from prunec.passes.canonicalise import canonicalise


@dataclass
class Row:
    model: str
    verdict: str
    error: str
    code: str
    weights: str
    arena: str


def main() -> int:
    parser = argparse.ArgumentParser(description="Models compiled for other machines, beside ONNX Runtime.")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--target", choices=("wasm",), default="wasm")
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    rows = []
    for model in named(arguments.models):
        rows.append(row(model))
        print(line(rows[-1]), flush=True)
    if arguments.markdown and rows:
        arguments.markdown.write_text(markdown(rows), encoding="utf-8")
    return 0


def row(model: str) -> Row:
    """One model: compiled and compared, or why not."""
    shapes: Mapping[str, Sequence[int]] = {}
    calib: str | None = None
    if Path(model).is_file():
        loaded = read_graph(Path(model))
    else:
        found = zoo.get(model)
        loaded, calib = ir.load(found.path), found.calib
        shapes = SHAPES.get(model) or zoo.entry(model).static_inputs
    with tempfile.TemporaryDirectory(prefix="prunec-cross-") as folder:
        try:
            return _wasm(graph_name(model), canonicalise(loaded), shapes, calib, Path(folder))
        except PrunecError as refusal:
            return Row(graph_name(model), str(refusal.diagnostic), "", "", "", "")


def _wasm(name: str, model: ir.Model, shapes: Mapping[str, Sequence[int]], calib: str | None, folder: Path) -> Row:
    from prunec.backends.wasm.building import build
    from prunec.backends.wasm.layout import MODULE
    from prunec.backends.wasm.spec import WasmSpec
    from prunec.backends.wasm.target import check

    built = build(model, WASM, folder, shapes, name=name)
    spec = WasmSpec.read(built.folder)
    samples = samples_for(list(open_calibration(calib, built.ready, samples=4, seed=0).held_out()), [built.ready])[0]
    record = check(built.ready, built.folder, samples[:2])
    code = (built.folder / MODULE).stat().st_size
    sizes = (f"{size / 1e6:.2f} MB" for size in (code, spec.weights_bytes, spec.arena_bytes))
    return Row(name, "equal", f"{record.max_rel:.1e}", *sizes)


if __name__ == "__main__":
    sys.exit(main())
