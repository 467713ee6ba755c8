"""Single layers in generated kernels: rate on the non-zeros, share of the processor's peak, speed against ONNX Runtime.

    python -m benchmarks.cpu_kernels [--only 'resnet50*'] [--densities 1 .5 .3 .1] [--runs 40] [--markdown FILE]

Layers of ResNet-50, MobileNet-v2, MiniLM-L6 (64 tokens) and EfficientNet-Lite0 with ReLU, one thread, random weights
with random zero blocks of 16×1 and 4×1. The kernels that tuning chooses among and ONNX Runtime's dense layer run in
turn in this thread, and its CPU time is what is read; the best of the runs counts, because whatever else the machine
does only adds. `ort` is the ratio of the best times, `peak` the share of what multiply-adds in registers reach, `rule`
the time of the best kernel over that of the one chosen without tuning. That kernels compute the right numbers is what
tests are for.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import sys
import time
from collections.abc import Callable as Function
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("TVM_NUM_THREADS", "1")

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import helper, numpy_helper

from benchmarks.tables import line, markdown
from prunec.backends.cpu.isa import Isa, host_isa
from prunec.backends.cpu.kernels.compiler import callables
from prunec.backends.cpu.lower.candidates import Choice, Product, build, by_rule, candidates
from prunec.backends.cpu.lower.lowering import lower
from prunec.backends.cpu.lower.prepare import prepare
from prunec.backends.cpu.peak import peak_gflops
from prunec.backends.cpu.tuning import arguments

# name: input channels, output channels, kernel, size of the image (or rows of a product, with kernel 0), stride
LAYERS: dict[str, tuple[int, int, int, int, int]] = {
    "resnet50 3x3 56": (64, 64, 3, 56, 1), "resnet50 3x3 28": (128, 128, 3, 28, 1),
    "resnet50 3x3 14": (256, 256, 3, 14, 1), "resnet50 3x3 7": (512, 512, 3, 7, 1),
    "resnet50 3x3 s2": (128, 128, 3, 56, 2), "resnet50 1x1 56": (64, 256, 1, 56, 1),
    "resnet50 1x1 28": (512, 128, 1, 28, 1), "resnet50 1x1 14": (1024, 256, 1, 14, 1),
    "resnet50 1x1 7": (2048, 512, 1, 7, 1), "mobilenet-v2 56": (24, 144, 1, 56, 1),
    "mobilenet-v2 14": (384, 64, 1, 14, 1), "mobilenet-v2 7": (960, 160, 1, 7, 1),
    "minilm 384": (384, 384, 0, 64, 1), "minilm up": (384, 1536, 0, 64, 1), "minilm down": (1536, 384, 0, 64, 1),
    "lite0 28": (40, 240, 1, 28, 1), "lite0 14": (480, 80, 1, 14, 1), "lite0 7": (192, 1152, 1, 7, 1),
}  # fmt: skip


@dataclass
class Row:
    layer: str
    pattern: str
    density: float
    mflop: float
    us: float
    gflops: float
    peak: float
    ort: float
    rule: float
    kernel: str


def main() -> int:
    parser = argparse.ArgumentParser(description="Generated kernels, layer by layer.")
    parser.add_argument("--only", default="*")
    parser.add_argument("--densities", type=float, nargs="+", default=[1.0, 0.5, 0.3, 0.1])
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    isa, rows = host_isa(), list[Row]()
    for name in fnmatch.filter(LAYERS, arguments.only):
        for row in measured(name, arguments.densities, arguments.runs, isa):
            rows.append(row)
            print(line(row), flush=True)
    if arguments.markdown and rows:
        arguments.markdown.write_text(markdown(rows), encoding="utf-8")
    return 0


def measured(name: str, densities: list[float], runs: int, isa: Isa) -> list[Row]:
    """All densities and patterns of one layer, every candidate in turn, with ONNX Runtime's dense one between them."""
    reference = in_onnx_runtime(layer_model(name, 1.0, 16))
    peak = max(peak_gflops(isa, 1) for _ in range(10))
    rows = []
    for density, height in [(d, rows) for d in densities for rows in ((16,) if d == 1 else (16, 4))]:
        flops, kernels = candidate_kernels(layer_model(name, density, height), isa)
        best, other = dict.fromkeys(kernels, float("inf")), float("inf")
        for _ in range(runs):
            other = min(other, seconds(reference))
            for choice, run in kernels.items():
                best[choice] = min(best[choice], seconds(run))
        first, winner = next(iter(best)), min(best, key=lambda choice: best[choice])
        rate = flops / best[winner] / 1e9
        rows.append(
            Row(
                layer=name, pattern=f"{height}×1" if density < 1 else "dense", density=density, mflop=flops / 1e6,
                us=best[winner] * 1e6, gflops=rate, peak=rate / peak, ort=other / best[winner],
                rule=best[winner] / best[first], kernel=spelled(winner),
            )
        )  # fmt: skip
    return rows


def seconds(run: Function[[], object]) -> float:
    start = time.thread_time()
    run()
    return time.thread_time() - start


def weights(outputs: int, columns: int, density: float, rows: int) -> np.ndarray:
    """float32 [outputs, columns], this share of the blocks of every row of blocks not zero."""
    rng = np.random.default_rng(0)
    kept = rng.permuted(np.arange(columns) < round(density * columns) * np.ones((outputs // rows, 1)), axis=1)
    values = rng.standard_normal((outputs, columns)) * np.repeat(kept, rows, axis=0)
    return values.astype(np.float32)


def layer_model(name: str, density: float, rows: int) -> ir.Model:
    """The layer with its ReLU as an ONNX model."""
    c, m, k, size, stride = LAYERS[name]
    weight = weights(m, c * max(k, 1) ** 2, density, rows)
    shape = [1, c, size, size] if k else [size, c]
    array = weight.reshape(m, k, k, c).transpose(0, 3, 1, 2).copy() if k else weight.T.copy()
    options = {"pads": [k // 2] * 4, "strides": [stride] * 2} if k else {}
    out = [1, m, (size - 1) // stride + 1, (size - 1) // stride + 1] if k else [size, m]
    nodes = [
        helper.make_node("Conv" if k else "MatMul", ["x", "w"], ["s"], name="layer", **options),
        helper.make_node("Relu", ["s"], ["y"], name="relu"),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "layer", [info("x", 1, shape)], [info("y", 1, out)], [numpy_helper.from_array(array, "w")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return ir.from_proto(model)


def in_onnx_runtime(model: ir.Model) -> Function[[], object]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    shape = [int(d) for d in model.graph.inputs[0].shape or ()]
    feeds = {"x": np.random.default_rng(1).standard_normal(shape).astype(np.float32)}
    return lambda: session.run(None, feeds)


def candidate_kernels(model: ir.Model, isa: Isa) -> tuple[int, dict[Choice, Function[[], object]]]:
    """Operations on non-zeros, and a run of every kernel that tuning would measure, the rule's first."""
    found: list[Product] = []

    def collect(product: Product) -> Choice:
        found.append(product)
        return by_rule(product)

    ready = prepare(model)
    _, refusals = lower(list(ready.graph), list(ready.graph.inputs), list(ready.graph.outputs), isa, collect)
    assert not refusals
    (product,) = found
    built = {choice: build(product, choice) for choice in candidates(product)}
    functions = callables([one.kernel for one in built.values()], isa, threads=1)
    n, h, w = product.grid
    flops = 2 * n * h * w * int(np.count_nonzero(product.matrix))
    runs: dict[Choice, Function[[], object]] = {}
    for choice, one in built.items():
        function = functions[one.kernel.symbol()]
        runs[choice] = partial(function.run, arguments(one, function))
    return flops, runs


def spelled(choice: Choice) -> str:
    """A 16 × (1×28): family, rows, pixels of a tile; B 8 × 3 of (7×56): rows, vectors, lines and columns of a panel."""
    size = f"({choice.tile[0]}×{choice.tile[1]})"
    if choice.family == "row_major":
        return f"A {choice.rows} × {size}"
    passes = f", {choice.passes} passes" if choice.passes > 1 else ""
    return f"B {choice.rows} × {choice.vectors} of {size}{passes}"


if __name__ == "__main__":
    sys.exit(main())
