"""Single layers for `cpu_kernels`: as ONNX models, in ONNX Runtime, and in every generated kernel worth measuring."""

from __future__ import annotations

import time
from collections.abc import Callable as Function
from functools import partial

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import helper, numpy_helper

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.compiler import callables
from prunec.backends.cpu.lower.candidates import Choice, Product, build, by_rule, candidates
from prunec.backends.cpu.lower.lowering import lower
from prunec.backends.cpu.lower.prepare import prepare
from prunec.backends.cpu.tuning import arguments

# name: input channels, output channels, kernel, size of the image (or rows of a product, with kernel 0), stride
LAYERS: dict[str, tuple[int, int, int, int, int]] = {
    "resnet50 3x3 56": (64, 64, 3, 56, 1), "resnet50 3x3 28": (128, 128, 3, 28, 1),
    "resnet50 3x3 14": (256, 256, 3, 14, 1), "resnet50 3x3 7": (512, 512, 3, 7, 1),
    "resnet50 3x3 s2": (128, 128, 3, 56, 2), "resnet50 1x1 56": (64, 256, 1, 56, 1),
    "resnet50 1x1 28": (512, 128, 1, 28, 1), "resnet50 1x1 14": (1024, 256, 1, 14, 1),
    "resnet50 1x1 7": (2048, 512, 1, 7, 1), "resnet50 1x1 7 up": (512, 2048, 1, 7, 1),
    "mobilenet-v2 56": (24, 144, 1, 56, 1), "mobilenet-v2 14": (384, 64, 1, 14, 1),
    "mobilenet-v2 7": (960, 160, 1, 7, 1), "minilm 384": (384, 384, 0, 64, 1), "minilm up": (384, 1536, 0, 64, 1),
    "minilm down": (1536, 384, 0, 64, 1), "lite0 28": (40, 240, 1, 28, 1), "lite0 14": (480, 80, 1, 14, 1),
    "lite0 7": (192, 1152, 1, 7, 1),
}  # fmt: skip
Run = Function[[], object]
STRETCH = 5e-4


def mflop(name: str) -> float:
    """Of the dense layer."""
    c, m, k, size, stride = LAYERS[name]
    pixels = ((size - 1) // stride + 1) ** 2 if k else size
    return 2e-6 * c * m * max(k, 1) ** 2 * pixels


def seconds(run: Run, threads: int) -> float:
    """A run's share of a stretch of at least half a millisecond, after one that brings its memory into the caches.

    CPU time of this thread for one thread, so that other processes count less; else of the clock.
    """
    clock = time.thread_time if threads == 1 else time.perf_counter
    run()
    start, count = clock(), 0
    while (taken := clock() - start) < STRETCH or not count:
        run()
        count += 1
    return taken / count


def weights(outputs: int, columns: int, density: float, rows: int) -> np.ndarray:
    """float32 [outputs, columns], this share of the blocks of every row of blocks not zero."""
    rng = np.random.default_rng(0)
    kept = rng.permuted(np.arange(columns) < round(density * columns) * np.ones((outputs // rows, 1)), axis=1)
    values = rng.standard_normal((outputs, columns)) * np.repeat(kept, rows, axis=0)
    return values.astype(np.float32)


def layer_model(name: str, density: float, rows: int, *, is_inside: bool = False) -> ir.Model:
    """The layer with its ReLU as an ONNX model. `is_inside`: behind another operator, as in a network."""
    c, m, k, size, stride = LAYERS[name]
    weight = weights(m, c * max(k, 1) ** 2, density, rows)
    shape = [1, c, size, size] if k else [size, c]
    array = weight.reshape(m, k, k, c).transpose(0, 3, 1, 2).copy() if k else weight.T.copy()
    options = {"pads": [k // 2] * 4, "strides": [stride] * 2} if k else {}
    out = [1, m, (size - 1) // stride + 1, (size - 1) // stride + 1] if k else [size, m]
    before = [helper.make_node("Relu", ["x"], ["r"], name="before")] if is_inside else []
    nodes = [
        *before,
        helper.make_node("Conv" if k else "MatMul", ["r" if before else "x", "w"], ["s"], name="layer", **options),
        helper.make_node("Relu", ["s"], ["y"], name="relu"),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "layer", [info("x", 1, shape)], [info("y", 1, out)], [numpy_helper.from_array(array, "w")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return ir.from_proto(model)


def in_onnx_runtime(model: ir.Model, threads: int) -> list[Run]:
    """With all of its optimisations, and without those of the layout, whose conversions a single layer pays alone."""
    shape = [int(d) for d in model.graph.inputs[0].shape or ()]
    feeds = {"x": np.random.default_rng(1).standard_normal(shape).astype(np.float32)}
    document, runs = ir.to_proto(model).SerializeToString(), list[Run]()
    levels = onnxruntime.GraphOptimizationLevel
    for level in (levels.ORT_ENABLE_ALL, levels.ORT_ENABLE_EXTENDED):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.graph_optimization_level = level
        session = onnxruntime.InferenceSession(document, options, providers=["CPUExecutionProvider"])
        runs.append(partial(session.run, None, feeds))
    return runs


def candidate_kernels(model: ir.Model, isa: Isa, threads: int) -> tuple[int, dict[Choice, Run]]:
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
    functions = callables([one.kernel for one in built.values()], isa, threads=threads)
    n, h, w = product.grid
    flops = 2 * n * h * w * int(np.count_nonzero(product.matrix))
    runs: dict[Choice, Run] = {}
    for choice, one in built.items():
        function = functions[one.kernel.symbol()]
        runs[choice] = partial(function.run, arguments(one, function))
    return flops, runs


def spelled(choice: Choice) -> str:
    """A 16 × (1×28): family, rows, pixels of a tile; B 8 × 3 of (7×56): rows, vectors, lines and columns of a panel."""
    size = f"({choice.tile[0]}×{choice.tile[1]})"
    passes = f", {choice.passes} passes" if choice.passes > 1 else ""
    if choice.family == "row_major":
        return f"A {choice.rows} × {size}, {choice.order} first{passes}"
    return f"B {choice.rows} × {choice.vectors} of {size}{passes}"
