"""Single layers in generated kernels: rate on the non-zeros, share of the processor's peak, speed against ONNX Runtime.

    python -m benchmarks.cpu_kernels [--only 'resnet50*'] [--densities 1 .5 .3 .1] [--runs 40] [--markdown FILE]

Layers of ResNet-50, MobileNet-v2, MiniLM-L6 (64 tokens) and EfficientNet-Lite0 with ReLU, one thread, random weights
with random zero blocks: 16×1 in family A (channels last) and 4×1 in family B (channels first, stride 1). Kernels and
ONNX Runtime's dense layer run in turn in this thread, and its CPU time is what is read; the best of the runs counts,
because whatever else the machine does only adds. `ort` is the ratio of the best times, `peak` the share of what
multiply-adds in registers reach. That the kernels compute the right numbers is what the tests are for.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import sys
import time
from collections.abc import Callable as Function
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TVM_NUM_THREADS", "1")

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import helper, numpy_helper

from benchmarks.tables import line, markdown
from prunec.backends.cpu.expression import operand, relu
from prunec.backends.cpu.isa import Isa, host_isa
from prunec.backends.cpu.kernels.base import Access
from prunec.backends.cpu.kernels.channel_major import ChannelMajor
from prunec.backends.cpu.kernels.compiler import Callable
from prunec.backends.cpu.kernels.row_major import RowMajor
from prunec.backends.cpu.lower.lowering import lower
from prunec.backends.cpu.lower.prepare import prepare
from prunec.backends.cpu.pack import convolution_matrix, convolution_offsets, pack_blocks
from prunec.backends.cpu.peak import peak_gflops

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
    """All densities of one layer, in both families, with ONNX Runtime's dense one between them."""
    reference = in_onnx_runtime(layer_model(name, np.float64(1.0), 16))
    cases: list[tuple[str, float, int, Function[[], object]]] = []
    for density in densities:
        model = layer_model(name, density, 16)
        cases.append(("16x1", density, *family_a(model, isa)))
        if LAYERS[name][4] == 1 and LAYERS[name][2]:
            cases.append(("4x1", density, *family_b(name, density, isa)))
    best, other, peak = [float("inf")] * len(cases), float("inf"), 0.0
    for number in range(runs):
        other = min(other, seconds(reference))
        best = [min(old, seconds(run)) for old, (*_, run) in zip(best, cases, strict=True)]
        peak = max(peak, peak_gflops(isa, 1)) if number == 0 else peak
    rows = []
    for (pattern, density, flops, _), taken in zip(cases, best, strict=True):
        rate = flops / taken / 1e9
        rows.append(Row(name, pattern, density, flops / 1e6, taken * 1e6, rate, rate / peak, other / taken))
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


def family_a(model: ir.Model, isa: Isa) -> tuple[int, Function[[], object]]:
    """The kernel that the lowering chooses: operations on non-zeros, and a run of it."""
    ready = prepare(model)
    program, refusals = lower(list(ready.graph), list(ready.graph.inputs), list(ready.graph.outputs), isa)
    assert not refusals
    step = next(s for s in program.steps if isinstance(s.call, RowMajor))
    kernel: Any = step.call
    function, rng = Callable(kernel, isa), np.random.default_rng(2)
    arrays = [
        b.data if b.data is not None else rng.standard_normal(b.elements).astype(np.float32) for b in step.buffers
    ]
    arguments = function.prepare(*arrays)
    n, h, w = kernel.grid
    flops = 2 * n * h * w * int(np.count_nonzero(step.buffers[1].data))
    return flops, lambda: function.run(arguments)


def family_b(name: str, density: float, isa: Isa) -> tuple[int, Function[[], object]]:
    """4×1 blocks over lines of pixels of a bordered image; of a 1×1 convolution all pixels are one line."""
    c, m, k, size, _ = LAYERS[name]
    pad = k // 2
    held = size + 2 * pad
    matrix = weights(m, c * k * k, density, 4)
    packed = pack_blocks(
        convolution_matrix(matrix.reshape(m, k, k, c).transpose(0, 3, 1, 2), 1),
        convolution_offsets((k, k), c, (held, 1, held * held)), 4,
    )  # fmt: skip
    grid, strides = ((1, 1, size * size), (0, 0, 1)) if k == 1 else ((1, size, size), (0, held, 1))
    lanes = isa.lanes("float32")
    tile = min(grid[2], (isa.registers - 4) // 4 * lanes)
    kernel = ChannelMajor(
        grid=grid, channels=m, rows=4, columns=c * k * k, x=Access(c * held * held, 0, strides),
        y=Access(m * size * size, 0, (*(0, 0 if k == 1 else size, 1), size * size)), epilogue=relu(operand(0)),
        tile=tile,
    )  # fmt: skip
    function, rng = Callable(kernel, isa), np.random.default_rng(2)
    x, y = rng.standard_normal(c * held * held).astype(np.float32), np.zeros(m * size * size, np.float32)
    arguments = function.prepare(x, packed.values, packed.index, packed.pointer, np.zeros(m, np.float32), y)
    return 2 * size * size * int(np.count_nonzero(matrix)), lambda: function.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
