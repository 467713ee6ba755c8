"""Whole models compiled for this CPU beside other runtimes in one interleaved run, and what a package costs.

    python -m benchmarks.cpu_models fashion-net crepe-full FOLDER/tv_resnet18.onnx.gz
        [--densities 1 .5 .25] [--threads 1 2] [--input-shape input_ids=1,64 …] [--beside openvino deepsparse]
        [--pattern block:4x1] [--blocks 30] [--tune quick] [--keep rows.json] [--markdown table.md]

Models of the zoo by name, or graphs as files (missing weights are filled, see `graph_files`). Zeros are blocks of 16×1
(`--pattern`) by magnitude, without refitting: speed is that of any such zeros, quality is not the point here. Each row
is one run of `prunec.measure` (processes of their own, pinned, interleaved, 95 % intervals) of ONNX Runtime on the
dense and on the sparse model, of generated code for both, and of every runtime in `--beside` on the model as the row
has it, all with the same static shapes: a batch of 1, other free axes by `--input-shape` (for the models that have such
an input). `over X` is X's time over that of generated code. At density 1 nothing is pruned. Each other runtime gets an
environment of its own in prunec's cache (pip, pinned versions, made once); what cannot be installed or cannot run a
model is said in the row. The second table has what a package costs: seconds of a compile without measuring the result
and where they went (`--tune` starts from nothing each time; `none` takes kernels by a rule), megabytes beside the ONNX
file, and load, first run and peak memory of the process beside ONNX Runtime's on the same model.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.cpu_packages import PATTERN, Row, Subject, measured
from benchmarks.kept import KeptRows
from benchmarks.runtimes import RUNTIMES
from benchmarks.tables import line, markdown
from prunec.frontend.input_shapes import parse_input_shapes

KEY = ("model", "pattern", "density", "threads")
SPEED = ("ms", "over_onnxruntime_dense", "over_onnxruntime", "over_own_dense", "over_openvino", "over_deepsparse",
         "own_dense_over_onnxruntime", "note")  # fmt: skip
COST = ("compile_s", "profile", "error", "size_mib", "load_ms", "first_run_ms", "memory_mib")


def say(text: str) -> None:
    print(f"# {text}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Whole models in generated code, beside other runtimes.")
    parser.add_argument("models", nargs="*")
    parser.add_argument("--densities", type=float, nargs="+", default=[1.0, 0.5, 0.25])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--input-shape", action="append", default=[], metavar="NAME=1,64")
    parser.add_argument("--beside", nargs="*", default=list(RUNTIMES), choices=list(RUNTIMES))
    parser.add_argument("--blocks", type=int, default=30, help="of runs, per contender")
    parser.add_argument("--pattern", default=PATTERN)
    parser.add_argument("--tune", default="none", choices=["none", "quick", "full"])
    parser.add_argument("--keep", type=Path, help="a file of rows: those in it are not computed again")
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    rows: list[Row] = []
    for row in all_rows(arguments):
        rows.append(row)
        print(line(row), flush=True)
        if arguments.markdown:
            arguments.markdown.write_text(tables(rows), encoding="utf-8")
    return 0


def all_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    shapes = parse_input_shapes(arguments.input_shape)
    beside = [f"{name} {RUNTIMES[name].version}" for name in arguments.beside]
    kept = KeptRows(Row, arguments.keep)
    for model in arguments.models:
        with tempfile.TemporaryDirectory(prefix="prunec-benchmark-") as folder:
            subject = Subject(model, shapes, Path(folder), arguments.pattern, arguments.tune)
            for density in arguments.densities:
                for threads in arguments.threads:
                    options = (arguments.blocks, arguments.pattern, arguments.tune, *arguments.input_shape)
                    key = (subject.name, density, threads, *options, *beside)
                    yield from kept.rows(
                        key, partial(measured, subject, density, threads, arguments.beside, arguments.blocks, say)
                    )


def tables(rows: list[Row]) -> str:
    """Speed, then cost."""
    return "\n".join(markdown(rows, columns=[*KEY, *columns]) for columns in (SPEED, COST))


if __name__ == "__main__":
    sys.exit(main())
