"""Single int8 layers for `int8_kernels`: in every generated kernel worth measuring, and in ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from benchmarks.cpu_layers import LAYERS, Run
from prunec.api.quantising import weight_bits
from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.compiler import callables
from prunec.backends.cpu.lower.quad_layers import Choice, Steps, Taps, candidates, quad_product
from prunec.backends.cpu.quad_weights import Weights
from prunec.backends.cpu.quads import Quads

_ZERO, _STEP = 128, np.float32(0.05)
_OWN = "com.microsoft"


@dataclass(frozen=True)
class Layer:
    """A layer of `LAYERS` with random int8 weights and random zero blocks of 4×4."""

    name: str
    density: float

    @property
    def taps(self) -> Taps:
        """Strides and pads."""
        *_, kernel, _, stride = LAYERS[self.name]
        return Taps((stride, stride), pads=(kernel // 2,) * 4)

    @property
    def images(self) -> tuple[Quads, Quads]:
        """Input, with the border that the kernel wants, and output, without one."""
        channels, outputs, kernel, size, stride = LAYERS[self.name]
        height = size if kernel else 1
        out = (size - 1) // stride + 1
        x = Quads(1, channels, height, size, (kernel // 2,) * 4)
        return x, Quads(1, outputs, out if kernel else 1, out)

    def weights(self) -> Weights:
        """int8 [M, C, kh, kw]: this share of the blocks of every row of blocks is there."""
        channels, outputs, kernel, *_ = LAYERS[self.name]
        kernel = max(kernel, 1)
        rng = np.random.default_rng(0)
        rows, columns = -(-outputs // 4), -(-channels // 4) * kernel * kernel
        kept = rng.permuted(np.arange(columns) < round(self.density * columns) * np.ones((rows, 1)), axis=1)
        mask = kept.reshape(rows, -1, kernel, kernel).repeat(4, axis=0).repeat(4, axis=1)
        most = 2 ** (weight_bits() - 1)  # without VNNI ONNX Runtime's sums of 8-bit weights saturate
        values = rng.integers(1, most, (outputs, channels, kernel, kernel)) * rng.choice((-1, 1), (outputs, 1, 1, 1))
        matrix = (values * mask[:outputs, :channels]).astype(np.int8)
        return Weights(matrix, np.zeros(outputs, np.int32), np.full(outputs, 2e-4, np.float32), _ZERO)


def candidate_kernels(layer: Layer, isa: Isa, threads: int) -> tuple[int, dict[Choice, Run]]:
    """Operations on non-zeros, and a run of every kernel that is worth measuring, the rule's first."""
    (x, y), weights = layer.images, layer.weights()
    grid = (1, y.height, y.width)
    choices = candidates(isa, weights.matrix, layer.taps, x, grid)
    built = {choice: quad_product(isa, weights, Steps(), layer.taps, x, y, choice=choice) for choice in choices}
    functions = callables([one.kernel for one in built.values()], isa, threads=threads)
    data = np.random.default_rng(1).integers(0, 256, x.size).astype(np.uint8)
    runs: dict[Choice, Run] = {}
    for choice, one in built.items():
        function = functions[one.kernel.symbol()]
        runs[choice] = partial(function.run, function.prepare(data, *one.weights, np.zeros(y.size, np.uint8)))
    return 2 * grid[1] * grid[2] * int(np.count_nonzero(weights.matrix)), runs


def in_onnx_runtime(layer: Layer, threads: int) -> list[Run]:
    """Its own operator on its own layout, channels last, so that no layer pays for conversions."""
    (x, y), weights = layer.images, layer.weights()
    channels, outputs, kernel, size, stride = LAYERS[layer.name]
    constants = {
        "xs": _STEP, "xz": np.uint8(_ZERO), "ys": np.float32(1.0), "yz": np.uint8(0),
        "ws": np.full(outputs, 2e-4 / _STEP, np.float32), "wz": np.zeros(outputs, np.int8),
    }  # fmt: skip
    if kernel:
        constants |= {"w": weights.matrix, "b": weights.bias}
        names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"]
        options = {"strides": [stride] * 2, "pads": [kernel // 2] * 4, "channels_last": 1}
        node = helper.make_node("QLinearConv", names, ["y"], domain=_OWN, **options)
        shapes = [1, x.height, x.width, channels], [1, y.height, y.width, outputs]
    else:
        constants |= {"w": weights.matrix[:, :, 0, 0].T.copy()}
        node = helper.make_node("QLinearMatMul", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["y"])
        shapes = [size, channels], [size, outputs]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node], "layer", [info("x", TensorProto.UINT8, shapes[0])], [info("y", TensorProto.UINT8, shapes[1])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(_OWN, 1)]
    document = helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(document, options, providers=["CPUExecutionProvider"])
    feeds = {"x": np.random.default_rng(1).integers(0, 256, shapes[0]).astype(np.uint8)}
    return [partial(session.run, None, feeds)]


def spelled(choice: Choice) -> str:
    """4 vectors, 2 passes."""
    return f"{choice.vectors} vectors" + (f", {choice.passes} passes" if choice.passes > 1 else "")
