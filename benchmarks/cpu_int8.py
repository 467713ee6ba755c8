"""Whole models in generated int8 code, dense and with zero blocks of 4×4, beside other int8 in one interleaved run.

    python -m benchmarks.cpu_int8 fashion-net crepe-tiny crepe-full FOLDER/tv_resnet50.onnx.gz
        [--densities 1 .5 .25] [--threads 1 2] [--input-shape input_ids=1,64 …] [--beside openvino deepsparse]
        [--blocks 30] [--bits 8] [--keep rows.json] [--markdown table.md]

Models of the zoo by name, or graphs as files (missing weights are filled, see `graph_files`), shapes static, a batch
of 1. Contenders of one model and number of threads run in one interleaved measurement, pinned, in processes of their
own: ONNX Runtime on the float model; ONNX Runtime on what its own `quantize_static` makes of it (QDQ, uint8, int8 per
channel, min-max); OpenVINO on that file, or where it refuses that on the dense QDQ graph; generated code for the QDQ
graph of each density; DeepSparse on the QDQ graph with the fewest blocks. `over X` is X's time over that of generated
code, with a 95 % interval. Zeros are blocks by magnitude, without refitting, and ranges min-max of made-up inputs:
speed is that of any such model, quality is not the point here. `error`: of generated code against ONNX Runtime on the
same QDQ graph, as it is written or fused there, in 1/255 of the range of the output; "nan" where a compile would refuse
it on these inputs, and the note says by how much. `in_float`: quantised layers that
have no int8 kernel.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnxruntime import quantization

from benchmarks import cpu_packages
from benchmarks.kept import KeptRows
from benchmarks.runtimes import RUNTIMES, able, installed
from benchmarks.tables import line, markdown
from prunec.api.quantising import weight_bits
from prunec.backends.cpu.building import build
from prunec.backends.cpu.checking import compare
from prunec.backends.cpu.isa import int8_isa
from prunec.backends.cpu.kernel_table import with_zeros
from prunec.diagnostics import GateError, PrunecError
from prunec.frontend.calibration import open_calibration
from prunec.frontend.input_shapes import parse_input_shapes
from prunec.measure.contender import Contender
from prunec.measure.ratio import ratio
from prunec.measure.results import Measurements
from prunec.measure.run import measure
from prunec.passes.canonicalise import canonicalise
from prunec.passes.quantise.driver import raised
from prunec.passes.quantise.observe import observe
from prunec.passes.quantise.placement import place
from prunec.passes.quantise.ranges import min_max
from prunec.passes.quantise.write import write
from prunec.passes.sparsify import LayerPattern
from prunec.patterns import parse
from prunec.plan.layers import ANY_LAYER, DENSE, choose_layers

PATTERN = "block:4x4"
FLOAT, STATIC = "float", "static"
SAMPLES = 8


@dataclass
class Row:
    """`ms`: median of generated code. `over_X`: X's time over it."""

    model: str
    density: float
    threads: int
    ms: float | None = None
    over_float: str | None = None
    over_static_int8: str | None = None
    over_own_dense: str | None = None
    over_openvino: str | None = None
    over_deepsparse: str | None = None
    float_over_static_int8: str | None = None
    error: str | None = None
    in_float: str | None = None
    note: str = ""


class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, batches: Sequence[Mapping[str, np.ndarray]]) -> None:
        self._left = iter(batches)

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        return next(self._left, None)


class Subject:
    """One model with static shapes, and what is made of it; `bits` of weights, None: as a compile here gives them."""

    def __init__(self, name: str, shapes: Mapping[str, Sequence[int]], folder: Path, bits: int | None = None) -> None:
        self.bits = bits or weight_bits()
        found = cpu_packages.Subject(name, shapes, folder)
        self.name, self.folder, self.source = found.name, folder, found.source
        self.model = raised(canonicalise(ir.load(self.source)))
        self.batches = list(open_calibration(None, self.model, samples=SAMPLES, seed=0).fit())
        self.samples = [
            {key: array[number : number + 1] for key, array in feeds.items()}
            for feeds in self.batches
            for number in range(len(next(iter(feeds.values()))))
        ]
        self.notes: list[str] = []
        self.errors: dict[float, float] = {}
        self.in_float: dict[float, int] = {}

    def static(self) -> Contender | None:
        """ONNX Runtime's own."""
        canonical, path = self.folder / "canonical.onnx", self.folder / "static.onnx"
        ir.save(self.model, canonical)  # batch norms folded and shapes inferred, as its makers advise
        try:
            quantization.quantize_static(
                str(canonical), str(path), Reader(self.samples), quant_format=quantization.QuantFormat.QDQ,
                per_channel=True, activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8, calibrate_method=quantization.CalibrationMethod.MinMax,
            )  # fmt: skip
        except Exception as reason:  # noqa: BLE001  (a peer may fail in any way, and the row says how)
            self.notes.append(_short(f"quantize_static: {type(reason).__name__}: {reason}"))
            return None
        return Contender(STATIC, path)

    def own(self, density: float) -> Contender:
        """Generated code for the QDQ graph with so many of the blocks of every layer that can have them."""
        graph = self.quantised(density)
        folder = self.folder / f"own{density}"
        folder.mkdir()
        built = build(graph, int8_isa(), folder)
        self.in_float[density] = len(built.split.in_float)
        try:
            self.errors[density] = compare(graph, built.folder, self.samples[:2], 1).max_rel
        except GateError as no:  # a compile would refuse it; how fast the code is does not depend on the numbers in it
            self.errors[density] = np.nan
            self.notes.append(_short(f"{density:g} of the blocks: {no.diagnostic}"))
        return Contender(own_name(density), built.folder, "cpu")

    def quantised(self, density: float) -> ir.Model:
        """The QDQ graph."""
        model = self.model
        if density < 1:
            pattern = parse(PATTERN)
            layers = choose_layers(model, pattern, 1 - density, (), (), ANY_LAYER)
            wanted = {p.node: LayerPattern(pattern, p.level) for p in layers if p.pattern != DENSE}
            model = with_zeros(model, wanted)
        placement = place(model)
        seen = observe(model, placement.values, lambda: iter(self.batches), seed=0, threads=1)
        grids = {name: min_max(seen[name]) for name in placement.values}
        grids |= {name: grids[root] for name, root in placement.shared.items()}
        graph = write(model, placement, grids, self.bits)
        ir.save(graph, self.graph_file(density))
        return graph

    def graph_file(self, density: float) -> Path:
        return self.folder / f"qdq{density}.onnx"


def own_name(density: float) -> str:
    return f"own {density:g}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Whole models in generated int8 code, beside other int8.")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--densities", type=float, nargs="+", default=[1.0, 0.5, 0.25])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--input-shape", action="append", default=[], metavar="NAME=1,64")
    parser.add_argument("--beside", nargs="*", default=list(RUNTIMES), choices=list(RUNTIMES))
    parser.add_argument("--blocks", type=int, default=30, help="of runs, per contender")
    parser.add_argument(
        "--bits", type=int, choices=(7, 8), help="of our weights (default: a compile's on this machine)"
    )
    parser.add_argument("--keep", type=Path, help="a file of rows: those in it are not computed again")
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    kept, rows = KeptRows(Row, arguments.keep), list[Row]()
    beside = [f"{name} {RUNTIMES[name].version}" for name in arguments.beside]
    for name in arguments.models:
        key = (name, *arguments.densities, *arguments.threads, arguments.blocks, *arguments.input_shape, *beside)
        key = (*key, arguments.bits or weight_bits())
        for row in kept.rows(key, partial(table, name, arguments)):
            rows.append(row)
            print(line(row), flush=True)
        if arguments.markdown:
            arguments.markdown.write_text(markdown(rows), encoding="utf-8")
    return 0


def table(name: str, arguments: argparse.Namespace) -> Iterator[Row]:
    """All rows of one model: everything is made first, then each number of threads is one run of all."""
    with tempfile.TemporaryDirectory(prefix="prunec-benchmark-") as folder:
        try:
            subject = Subject(name, parse_input_shapes(arguments.input_shape), Path(folder), arguments.bits)
            own = [subject.own(density) for density in sorted({1.0, *arguments.densities}, reverse=True)]
        except (PrunecError, GateError) as reason:
            yield Row(name, 1.0, arguments.threads[0], note=f"not compiled: {reason.diagnostic}")
            return
        static = subject.static()
        contenders = [Contender(FLOAT, subject.source), *([] if static is None else [static]), *own]
        for threads in arguments.threads:
            others, absent = peers(subject, static, arguments, threads)
            found = measure([*contenders, *others], subject.samples[0], threads=threads, blocks=arguments.blocks)
            notes = "; ".join([*subject.notes, *(f"{runtime}: {why}" for runtime, why in absent.items())])
            for density in arguments.densities:
                yield row_of(subject, density, found, threads, notes)


def peers(
    subject: Subject, static: Contender | None, arguments: argparse.Namespace, threads: int
) -> tuple[list[Contender], dict[str, str]]:
    """OpenVINO on ONNX Runtime's int8, or else on ours; DeepSparse on ours with the fewest blocks; who is missing."""
    files = {"openvino": [*([] if static is None else [static.model]), subject.graph_file(1.0)],
             "deepsparse": [subject.graph_file(min(arguments.densities))]}  # fmt: skip
    found, absent = list[Contender](), dict[str, str]()
    for name in arguments.beside:
        for file in files[name]:
            some, missing = installed(file, [name], lambda text: print(f"# {text}", file=sys.stderr))
            some, failing = able(some, subject.samples[0], threads)
            found += some
            absent |= {runtime: _short(f"{why} ({file.name})") for runtime, why in (missing | failing).items()}
            if some:
                break
    return found, absent


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 160 else f"{words[:159]}…"


def row_of(subject: Subject, density: float, found: Measurements, threads: int, notes: str) -> Row:
    mine = own_name(density)

    def over(other: str, base: str = mine) -> str | None:
        if other not in found.distributions or other == base:
            return None
        pair = (np.reshape(found.distributions[name], (found.protocol.processes, -1)) for name in (other, base))
        speedup = ratio(*pair, seed=found.protocol.seed)
        low, high = speedup.ci95
        return f"{speedup.median:.2f} ({low:.2f} to {high:.2f})"

    return Row(
        subject.name, density, threads, ms=found.contenders[mine].p50_ms, over_float=over(FLOAT),
        over_static_int8=over(STATIC), over_own_dense=over(own_name(1.0)), over_openvino=over("openvino"),
        over_deepsparse=over("deepsparse"), float_over_static_int8=over(FLOAT, STATIC),
        error=f"{subject.errors[density] * 255:.2g}", in_float=str(subject.in_float[density]), note=notes,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
