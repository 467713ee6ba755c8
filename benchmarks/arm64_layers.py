"""What a model's layers with zeros are modelled to gain on a stated ARM core, beside instructions counted under qemu.

    python -m benchmarks.arm64_layers FOLDER/tv_mobilenet_v2.onnx.gz [--density .3] [--pattern block:8x1]
        [--markdown table.md]

A model of the zoo by name, or a graph as a file (missing weights are filled, see `graph_files`). Zeros are blocks by
magnitude, without refitting. The numbers are those of the package's report: **no time was measured**. Instructions are
counted, and say how much less is computed, not how long it takes. Layers of one shape and density are one row; what the
plan left dense, because the model of the core says that zeros do not pay there, has none.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

import prunec
from benchmarks.cpu_packages import Subject
from benchmarks.tables import line, markdown
from prunec.graph.shapes import dims
from prunec.measure.modelled import Modelled, ModelledLayer


@dataclass
class Row:
    """`shape` is channels in → out, and height and width of the output. Times in microseconds."""

    shape: str
    layers: int
    density: str
    modelled_dense_us: str
    modelled_us: str
    modelled_speedup: str
    dense_instructions: str
    instructions: str
    fewer: str


def main() -> int:
    parser = argparse.ArgumentParser(description="Modelled speed-ups of layers on ARM, beside counted instructions.")
    parser.add_argument("model")
    parser.add_argument("--density", type=float, default=0.3, help="share of the prunable layers' weights that stays")
    parser.add_argument("--pattern", default="block:8x1")
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="prunec-arm64-") as folder:
        subject = Subject(arguments.model, {}, Path(folder), arguments.pattern)
        result = prunec.compile(
            subject.source, target="arm64", pattern=arguments.pattern, sparsity=1 - arguments.density,
            solver="magnitude", compensate=False, samples=8, output=Path(folder, "package"), cache=False,
        )  # fmt: skip
        if result.modelled is None:
            print("# no layer got zeros: on this core they pay nowhere in this model", file=sys.stderr)
            return 1
        rows = list(rows_of(result.modelled, ir.load(Path(folder, "package", "model.onnx"))))
    for row in rows:
        print(line(row))
    print(f"# {result.modelled.core}; {result.modelled.note}", file=sys.stderr)
    if arguments.markdown:
        arguments.markdown.write_text(markdown(rows), encoding="utf-8")
    return 0


def rows_of(modelled: Modelled, model: ir.Model) -> Iterator[Row]:
    """One row for layers alike, in the order of the model, and one for all of them together."""
    shapes = {node.name or "": _shape(node) for node in model.graph}
    alike: dict[tuple[str, str], list[ModelledLayer]] = {}
    for layer in modelled.layers:
        alike.setdefault((shapes[layer.name], f"{layer.density:.2f}"), []).append(layer)
    for (shape, density), layers in alike.items():
        yield _row(shape, density, layers)
    yield _row("all of these", "", modelled.layers)


def _row(shape: str, density: str, layers: Sequence[ModelledLayer]) -> Row:
    """Sums over the layers."""
    before, after = sum(each.dense_us for each in layers), sum(each.sparse_us for each in layers)
    counts = [(each.dense_instructions, each.sparse_instructions) for each in layers]
    known = [(a, b) for a, b in counts if a is not None and b is not None]
    dense, sparse = (sum(column) for column in zip(*known, strict=True)) if len(known) == len(layers) else (0, 0)
    return Row(
        shape, len(layers), density, f"{before:.0f}", f"{after:.0f}", f"{before / after:.2f}",
        f"{dense / 1e6:.2f} M" if dense else "–", f"{sparse / 1e6:.2f} M" if sparse else "–",
        f"{dense / sparse:.2f}" if sparse else "–",
    )  # fmt: skip


def _shape(node: ir.Node) -> str:
    weight = dims(node.inputs[1]) if len(node.inputs) > 1 else None
    out = dims(node.outputs[0]) or ()
    if weight is None or len(weight) < 2:
        return node.op_type
    if node.op_type != "Conv":
        return f"{node.op_type} {'×'.join(map(str, weight))}"
    kernel = "×".join(map(str, weight[2:]))
    return f"{weight[1]} → {weight[0]}, {kernel}, {'×'.join(map(str, out[2:]))}"


if __name__ == "__main__":
    sys.exit(main())
