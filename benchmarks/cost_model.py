"""The cost model of targets for other machines, beside measured times where there are any: WebAssembly in V8.

    python -m benchmarks.cost_model [--densities 1 .5 .3 .15] [--runs 30] [--markdown table.md]

Convolutions and products of usual shapes lie beside each other in one model, which is compiled once for every share of
blocks of 8×1 that is left and timed step by step in Node, the best of some runs. `scale` is the median of measured over
modelled times: what `Core.calibration` was multiplied with. Errors are relative, after that scale; `decisions` counts
layers and shares for which model and measurement agree whether zeros pay. `--core arm64` only prints the model.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from benchmarks.tables import line, markdown
from prunec.backends.cpu.isa import ARM64, WASM, Isa
from prunec.backends.cross.cost_model import core_for, node_times
from prunec.backends.cross.lowered import lowered
from prunec.backends.wasm.artifact import write_folder
from prunec.backends.wasm.node import NodeModel
from prunec.passes.canonicalise import canonicalise

SHAPES: Sequence[tuple[int, int, int, int]] = (
    (16, 96, 1, 112), (64, 64, 3, 56), (24, 144, 1, 56), (128, 128, 3, 28), (192, 32, 1, 28), (256, 256, 3, 14),
    (384, 64, 1, 14), (96, 576, 1, 14), (512, 512, 3, 7), (960, 160, 1, 7), (384, 384, 1, 8), (1536, 384, 1, 8),
    (512, 512, 1, 1), (2048, 1000, 1, 1),
)  # fmt: skip
"""(channels in, channels out, kernel, height and width)."""
ROWS = 8


Times = dict[str, float]
"""Microseconds by layer."""


@dataclass
class Row:
    """`modelled_us` after the scale, `error` relative to what was measured; speed-ups over the first density."""

    layer: str
    density: float
    modelled_us: float
    modelled_speedup: float
    measured_us: float | None = None
    error: float | None = None
    measured_speedup: float | None = None


def side_by_side(density: float) -> ir.Model:
    """Every shape as a layer with an input of its own; whole blocks of weights are zero."""
    rng = np.random.default_rng(0)
    nodes, inputs, outputs, weights = [], [], [], []
    for number, (before, after, kernel, size) in enumerate(SHAPES):
        kept = rng.random((-(-after // ROWS), before, kernel, kernel)) < density
        matrix = rng.standard_normal((after, before, kernel, kernel)) * np.repeat(kept, ROWS, axis=0)[:after]
        weights.append(numpy_helper.from_array(matrix.astype(np.float32), f"w{number}"))
        inputs.append(helper.make_tensor_value_info(f"x{number}", TensorProto.FLOAT, [1, before, size, size]))
        outputs.append(helper.make_tensor_value_info(f"y{number}", TensorProto.FLOAT, [1, after, size, size]))
        name, pads = f"{before}→{after} {kernel}×{kernel} at {size}²", [kernel // 2] * 4
        nodes.append(helper.make_node("Conv", [f"x{number}", f"w{number}"], [f"y{number}"], name=name, pads=pads))
    graph = helper.make_graph(nodes, "layers", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return ir.from_proto(model)


def times(density: float, isa: Isa, runs: int) -> tuple[Times, Times]:
    """Microseconds of every layer, modelled, and measured where the code runs here."""
    _, program = lowered(canonicalise(side_by_side(density)), isa, {})
    modelled = node_times(program, isa)
    if isa is not WASM:
        return modelled, {}
    best: Times = {}
    with tempfile.TemporaryDirectory(prefix="prunec-cost-") as folder:
        rng = np.random.default_rng(1)
        feeds = {n: rng.standard_normal(t.shape).astype(np.float32) for n, t in program.inputs.items()}
        with NodeModel(write_folder(program, [], isa, Path(folder), name="layers")) as model:
            for _ in range(runs):
                for nodes, taken in model.profile(feeds):
                    if nodes in modelled:
                        best[nodes] = min(taken / 1e3, best.get(nodes, np.inf))
    return modelled, best


def main() -> int:
    parser = argparse.ArgumentParser(description="The cost model beside measured times.")
    parser.add_argument("--core", choices=("wasm", "arm64"), default="wasm")
    parser.add_argument("--densities", type=float, nargs="+", default=[1.0, 0.5, 0.3, 0.15])
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    isa = {"wasm": WASM, "arm64": ARM64}[arguments.core]
    found = {density: times(density, isa, arguments.runs) for density in arguments.densities}
    scale = _scale(found.values())
    rows = rows_of(found, scale)
    for row in rows:
        print(line(row), flush=True)
    print(f"core: {core_for(isa).label}")
    errors = [abs(row.error) for row in rows if row.error is not None]
    if errors:
        print(f"scale {scale:.3f}; error of times: {_spread(errors)}")
    first = arguments.densities[0]
    pairs = [(r.modelled_speedup, r.measured_speedup) for r in rows if r.measured_speedup and r.density != first]
    if pairs:
        agreed = sum((a > 1) == (b > 1) for a, b in pairs)
        print(f"error of speed-ups: {_spread([abs(a / b - 1) for a, b in pairs])}; decisions {agreed} of {len(pairs)}")
    if arguments.markdown:
        arguments.markdown.write_text(markdown(rows), encoding="utf-8")
    return 0


def _scale(found: Iterable[tuple[Times, Times]]) -> float:
    """Median of measured over modelled times; 1 where nothing was measured."""
    ratios = [measured[layer] / modelled[layer] for modelled, measured in found for layer in measured]
    return float(np.median(ratios)) if ratios else 1.0


def rows_of(found: Mapping[float, tuple[Times, Times]], scale: float) -> list[Row]:
    """A row for every density and layer."""
    dense, measured_dense = next(iter(found.values()))
    rows = []
    for density, (modelled, measured) in found.items():
        for layer, taken in modelled.items():
            row = Row(layer, density, taken * scale, dense[layer] / taken)
            if layer in measured:
                row.measured_us, row.error = measured[layer], taken * scale / measured[layer] - 1
                row.measured_speedup = measured_dense[layer] / measured[layer]
            rows.append(row)
    return rows


def _spread(errors: Sequence[float]) -> str:
    return f"median {np.median(errors):.0%}, largest {max(errors):.0%}"


if __name__ == "__main__":
    sys.exit(main())
