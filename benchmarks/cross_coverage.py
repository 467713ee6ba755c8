"""Dense models compiled for machines that are not this one, and compared with ONNX Runtime.

    python -m benchmarks.cross_coverage zoo [--target wasm|arm64] [--precision int8] [--count]
        [--keep rows.json] [--markdown table.md]

Models of the zoo by name or all of them, or ONNX files. Each is compiled as it is, with its free axes as in
`benchmarks.cpu_coverage`, and run on two inputs, those of the zoo where it has some: WebAssembly in wasmtime and in
Node, 64-bit ARM under qemu. `error` is the largest difference of an output relative to its range, from ONNX Runtime or,
where that disagrees, from the same graph in float64 (`reference`); `code` is what is left of the module or the shared
library without weights. With `--precision int8` the model is quantised first (as in `benchmarks.wasm_models`);
`--count` has qemu count the instructions of one run for 64-bit ARM.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

import prunec.models as zoo
from benchmarks.cpu_coverage import named
from benchmarks.cpu_int8 import Subject
from benchmarks.graph_files import graph_name, read_graph
from benchmarks.kept import KeptRows
from benchmarks.tables import line, markdown
from benchmarks.zoo_shapes import SHAPES
from prunec.backends.cpu.checking import samples_for
from prunec.backends.cpu.isa import ARM64, ARM64_DOT, WASM, Isa
from prunec.diagnostics import PrunecError
from prunec.frontend.calibration import open_calibration
from prunec.passes.canonicalise import canonicalise

if TYPE_CHECKING:
    from prunec.backends.cross.spec import ModelSpec
    from prunec.verify.records import LoweringRecord


@dataclass
class Row:
    """`error` is against `reference`: ONNX Runtime, or float64 where that disagrees.

    Then the last two are given: how far we are from ONNX Runtime, and how far that is from float64.
    """

    model: str
    verdict: str
    error: str
    code: str
    weights: str
    arena: str
    reference: str = "ONNX Runtime"
    from_onnxruntime: str = ""
    onnxruntime_from_float64: str = ""
    instructions: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(description="Models compiled for other machines, beside ONNX Runtime.")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--target", choices=("wasm", "arm64"), default="wasm")
    parser.add_argument("--precision", choices=("int8",), help="default: float32")
    parser.add_argument("--count", action="store_true", help="instructions, of arm64")
    parser.add_argument("--keep", type=Path, help="a file of rows: those in it are not computed again")
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    rows = []
    kept = KeptRows(Row, arguments.keep)
    for model in named(arguments.models):
        own = (model, arguments.target, arguments.precision, arguments.count)
        rows += kept.rows(own, lambda own=own: [row(*own)])
        print(line(rows[-1]), flush=True)
    if arguments.markdown and rows:
        arguments.markdown.write_text(markdown(rows), encoding="utf-8")
    return 0


def row(model: str, target: str, precision: str | None = None, counts: bool = False) -> Row:
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
            if precision is not None:
                (Path(folder) / "quantised").mkdir()
                loaded = Subject(model, shapes, Path(folder) / "quantised").quantised(1.0)
            ready, own = canonicalise(loaded), Path(folder)
            if target == "wasm":
                return _wasm(graph_name(model), ready, shapes, calib, own)
            isa = ARM64 if precision is None else ARM64_DOT
            return _arm64(graph_name(model), ready, shapes, calib, own, isa, counts=counts)
        except PrunecError as refusal:
            return Row(graph_name(model), str(refusal.diagnostic), "", "", "", "")


def _wasm(name: str, model: ir.Model, shapes: Mapping[str, Sequence[int]], calib: str | None, folder: Path) -> Row:
    from prunec.backends.wasm.building import build
    from prunec.backends.wasm.layout import MODULE
    from prunec.backends.wasm.spec import WasmSpec
    from prunec.backends.wasm.target import check

    built = build(model, WASM, folder, shapes, name=name)
    spec = WasmSpec.read(built.folder)
    record = check(built.ready, built.folder, _samples(calib, model, built.ready))
    return _row(name, record, (built.folder / MODULE).stat().st_size, spec)


def _arm64(
    name: str, model: ir.Model, shapes: Mapping[str, Sequence[int]], calib: str | None, folder: Path, isa: Isa,
    *, counts: bool,
) -> Row:  # fmt: skip
    from prunec.backends.arm64.artifact import write_folder
    from prunec.backends.arm64.counting import step_counts
    from prunec.backends.arm64.target import check
    from prunec.backends.cpu.layout import LIBRARY
    from prunec.backends.cross.lowered import bools, lowered
    from prunec.backends.cross.spec import ModelSpec

    ready, program = lowered(model, isa, shapes)
    own = write_folder(program, bools(ready), isa, folder, name=name)
    record = check(ready, own, _samples(calib, model, ready))
    found = _row(name, record, (own / LIBRARY).stat().st_size, ModelSpec.read(own))
    counted = step_counts(own) if counts else None
    if counted is not None:
        found.instructions = f"{sum(step.instructions for step in counted) / 1e6:.2f} million"
    return found


def _samples(calib: str | None, model: ir.Model, ready: ir.Model) -> list[dict[str, np.ndarray]]:
    """Real ones may have other shapes than the program; then they are made up, as where there are none."""
    calibration = open_calibration(calib, ready if calib is None else model, samples=4, seed=0)
    return samples_for(list(calibration.held_out()), [ready])[0][:2]


def _row(name: str, record: LoweringRecord, code: int, spec: ModelSpec) -> Row:
    sizes = (f"{size / 1e6:.2f} MB" for size in (code, spec.weights_bytes, spec.arena_bytes))
    row = Row(name, "equal", f"{record.max_rel:.1e}", *sizes)
    if record.decided_in == "float64":
        row.reference = "float64"
        row.from_onnxruntime, row.onnxruntime_from_float64 = (
            "other integers" if error is None else f"{error:.1e}"
            for error in (record.float32_max_rel, record.reference_float64_max_rel)
        )
    return row


if __name__ == "__main__":
    sys.exit(main())
