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
from collections.abc import Sequence
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


@dataclass
class Row:
    layer: str
    density: float
    modelled_us: float
    measured_us: str = ""
    error: str = ""
    modelled_speedup: str = ""
    measured_speedup: str = ""


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


def times(density: float, isa: Isa, runs: int) -> tuple[dict[str, float], dict[str, float]]:
    """Microseconds of every layer, modelled, and measured where the code runs here."""
    _, program = lowered(canonicalise(side_by_side(density)), isa, {})
    modelled = node_times(program, isa)
    if isa is not WASM:
        return modelled, {}
    best: dict[str, float] = {}
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
    both = [(m[layer], t[layer]) for m, t in found.values() for layer in t]
    scale = float(np.median([measured / modelled for modelled, measured in both])) if both else 1.0
    rows = [
        _row(layer, density, found[density], found[arguments.densities[0]], scale)
        for density in arguments.densities
        for layer in found[density][0]
    ]
    for row in rows:
        print(line(row), flush=True)
    print(f"core: {core_for(isa).label}")
    if both:
        errors = [abs(modelled * scale / measured - 1) for modelled, measured in both]
        pairs = [
            (_speedups(found, density, layer)) for density in arguments.densities[1:] for layer in found[density][1]
        ]
        ratios = [abs(a / b - 1) for a, b in pairs]
        agreed = sum((a > 1) == (b > 1) for a, b in pairs)
        print(f"scale {scale:.3f}; error of times: median {np.median(errors):.0%}, largest {max(errors):.0%}; ", end="")
        print(f"of speed-ups: median {np.median(ratios):.0%}, largest {max(ratios):.0%}; ", end="")
        print(f"decisions {agreed} of {len(pairs)}")
    if arguments.markdown:
        arguments.markdown.write_text(markdown(rows), encoding="utf-8")
    return 0


Found = tuple[dict[str, float], dict[str, float]]


def _speedups(found: dict[float, Found], density: float, layer: str) -> tuple[float, float]:
    """Modelled and measured, over the first density."""
    (dense, measured_dense), (sparse, measured) = next(iter(found.values())), found[density]
    return dense[layer] / sparse[layer], measured_dense[layer] / measured[layer]


def _row(layer: str, density: float, own: Found, dense: Found, scale: float) -> Row:
    modelled, measured = own
    row = Row(layer, density, round(modelled[layer] * scale, 1))
    row.modelled_speedup = f"{dense[0][layer] / modelled[layer]:.2f}"
    if layer in measured:
        row.measured_us = f"{measured[layer]:.1f}"
        row.error = f"{modelled[layer] * scale / measured[layer] - 1:+.0%}"
        row.measured_speedup = f"{dense[1][layer] / measured[layer]:.2f}"
    return row


if __name__ == "__main__":
    sys.exit(main())
