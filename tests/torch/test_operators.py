"""Options of single operators against ONNX Runtime: paddings, modes, steps, gates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from prunec.passes.canonicalise import canonicalise
from tests.graph.builder import Builder
from tests.graph.checks import random_feeds, relative_error, run

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
pytestmark = pytest.mark.torch

IMAGE = [2, 4, 7, 9]


def compare(build: Callable[[Builder], str], opset: int = 18, tolerance: float = 1e-5) -> None:
    from prunec.torch.from_ir import to_graph_module

    b = Builder(0, opset)
    b.output(build(b))
    model = canonicalise(b.model())
    assert sum(1 for _ in model.graph), "the graph was folded away"
    feeds = random_feeds(model, np.random.default_rng(2))
    got = to_graph_module(model)(*[torch.from_numpy(array) for array in feeds.values()])
    assert relative_error(run(model, feeds), [got.detach().numpy()]) <= tolerance


def image(b: Builder) -> str:
    return b.input("x", IMAGE)


def ints(b: Builder, *values: int) -> str:
    return b.const(np.array(values, np.int64))


@pytest.mark.parametrize(
    "options",
    [
        {"pads": [1, 2, 1, 2]},
        {"pads": [0, 1, 2, 1], "strides": [2, 1]},
        {"dilations": [2, 2], "pads": [2, 2, 2, 2]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 3]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
        {"auto_pad": "VALID", "group": 2},
    ],
)
def test_conv(options: dict[str, Any]) -> None:
    compare(lambda b: b.op("Conv", [image(b), b.weight(6, 4 // options.get("group", 1), 3, 3), b.weight(6)], **options))


@pytest.mark.parametrize(
    "options",
    [
        {"strides": [2, 1], "pads": [3, 0, 3, 0]},
        {"strides": [3, 2], "auto_pad": "SAME_UPPER"},
        {"dilations": [2, 1], "pads": [1, 0, 2, 0], "group": 2},
        {"pads": [1, 1, 1, 1]},
    ],
)
def test_conv_along_a_column(options: dict[str, Any]) -> None:
    weights = 4 // options.get("group", 1)
    compare(lambda b: b.op("Conv", [b.input("x", [2, 4, 40, 1]), b.weight(6, weights, 9, 1), b.weight(6)], **options))


@pytest.mark.parametrize(
    "options",
    [
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
        {"strides": [2, 2], "pads": [0, 1, 1, 0]},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 2], "auto_pad": "SAME_LOWER"},
        {"strides": [2, 2], "output_shape": [14, 18]},
        {"dilations": [2, 1], "group": 2},
    ],
)
def test_conv_transpose(options: dict[str, Any]) -> None:
    group = options.get("group", 1)
    compare(lambda b: b.op("ConvTranspose", [image(b), b.weight(4, 6 // group, 3, 3), b.weight(6)], **options))


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    "options",
    [
        {"strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"strides": [2, 2], "pads": [0, 1, 2, 0]},
        {"strides": [2, 2], "ceil_mode": 1},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"strides": [3, 2], "auto_pad": "SAME_LOWER"},
        {"pads": [2, 2, 2, 2]},
    ],
)
def test_pool(op: str, options: dict[str, Any]) -> None:
    compare(lambda b: b.op(op, [image(b)], kernel_shape=[3, 3], **options))


def test_average_pool_that_counts_its_padding() -> None:
    compare(lambda b: b.op("AveragePool", [image(b)], kernel_shape=[3, 3], pads=[1, 0, 1, 2], count_include_pad=1))


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("where", ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
@pytest.mark.parametrize("factor", [2.0, 0.6])
def test_resize(mode: str, where: str, factor: float) -> None:
    scales = np.array([1, 1, factor, factor], np.float32)
    compare(lambda b: b.op("Resize", [image(b), "", b.const(scales)], mode=mode, coordinate_transformation_mode=where))


@pytest.mark.parametrize("rounding", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
def test_resize_to_sizes(rounding: str) -> None:
    compare(lambda b: b.op("Resize", [image(b), "", "", ints(b, 2, 4, 10, 5)], mode="nearest", nearest_mode=rounding))


def test_cubic_resize_without_what_is_outside() -> None:
    scales = np.array([1, 1, 1.5, 2], np.float32)
    compare(
        lambda b: b.op("Resize", [image(b), "", b.const(scales)], mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5)
    )


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_pad(mode: str) -> None:
    compare(lambda b: b.op("Pad", [image(b), ints(b, 1, 2, 3, 0), "", ints(b, 2, -1)], mode=mode), opset=19)


@pytest.mark.parametrize(
    ("starts", "ends", "steps"),
    [((1, -3), (100, -1), (2, 1)), ((-1, 5), (-100, 0), (-1, -2)), ((3, -1), (0, -8), (-1, -3))],
)
def test_slice(starts: tuple[int, int], ends: tuple[int, int], steps: tuple[int, int]) -> None:
    compare(lambda b: b.op("Slice", [image(b), ints(b, *starts), ints(b, *ends), ints(b, 2, 3), ints(b, *steps)]))


@pytest.mark.parametrize("axes", [(1, 3), (-1,), None])
@pytest.mark.parametrize(
    "op",
    "ReduceSum ReduceMean ReduceMax ReduceMin ReduceL1 ReduceL2 ReduceSumSquare ReduceProd ReduceLogSumExp".split(),
)
def test_reduce(op: str, axes: tuple[int, ...] | None) -> None:
    compare(lambda b: b.op(op, [image(b), *([ints(b, *axes)] if axes else [])], keepdims=0 if axes else 1))


@pytest.mark.parametrize(
    ("op", "options"),
    [
        ("LeakyRelu", {"alpha": 0.2}), ("Elu", {"alpha": 0.7}), ("Selu", {}), ("Celu", {"alpha": 0.5}),
        ("HardSigmoid", {}), ("HardSwish", {}), ("Softplus", {}), ("Softsign", {}), ("ThresholdedRelu", {"alpha": 0.3}),
        ("Mish", {}), ("Erf", {}), ("Sign", {}), ("Round", {}), ("Floor", {}), ("Sin", {}), ("LogSoftmax", {"axis": 1}),
        ("LpNormalization", {"axis": 1, "p": 2}), ("LRN", {"size": 3, "alpha": 0.1}), ("Flatten", {"axis": 2}),
        ("Shrink", {"bias": 0.1, "lambd": 0.3}), ("Transpose", {}), ("SpaceToDepth", {"blocksize": 1}),
    ],
)  # fmt: skip
def test_one_input(op: str, options: dict[str, Any]) -> None:
    compare(lambda b: b.op(op, [image(b)], **options))


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(approximate: str) -> None:
    compare(lambda b: b.op("Gelu", [image(b)], approximate=approximate), opset=20)


def test_norms() -> None:
    compare(lambda b: b.op("InstanceNormalization", [image(b), b.weight(4), b.weight(4)], epsilon=1e-3))
    compare(lambda b: b.op("LayerNormalization", [image(b), b.weight(7, 9), b.weight(7, 9)], axis=2))


def inferred_nowhere(b: Builder, op: str, *lengths: int, **options: Any) -> str:
    """ONNX infers no shape for these."""
    y = str(b.op(op, [image(b), *(b.weight(length) for length in lengths)], **options))
    b.shapes[y] = IMAGE
    return y


def test_norms_of_newer_opsets() -> None:
    compare(lambda b: inferred_nowhere(b, "GroupNormalization", 4, 4, num_groups=2), opset=21)
    compare(lambda b: inferred_nowhere(b, "RMSNormalization", 9), opset=23)


def test_selections() -> None:
    compare(lambda b: b.op("Gather", [image(b), ints(b, 3, -1, 0)], axis=-1))
    compare(lambda b: b.op("Gather", [image(b), b.const(np.array([[0, 1], [2, -1]], np.int64))], axis=1))
    compare(lambda b: b.op("TopK", [image(b), ints(b, 3)], outputs=2, axis=-1)[0])
    compare(lambda b: b.op("Split", [image(b)], outputs=2, axis=3, num_outputs=2)[1])
    compare(lambda b: b.op("Trilu", [image(b), b.const(np.array(1, np.int64))], upper=0))
    compare(lambda b: b.op("CumSum", [image(b), b.const(np.array(2, np.int64))], exclusive=1, reverse=1))
    compare(lambda b: b.op("Where", [b.op("Greater", [image(b), b.const(np.float32(0))]), b.const(np.float32(1)), "x"]))
    compare(lambda b: b.op("Tile", [image(b), ints(b, 1, 2, 1, 3)]))
    compare(lambda b: b.op("Expand", [b.op("ReduceMean", [image(b), ints(b, 1)]), ints(b, 1, 5, 1, 1)]))
    compare(lambda b: b.op("Max", [image(b), b.weight(9), b.weight(7, 1)]))
    compare(lambda b: b.op("Clip", [image(b), "", b.const(np.float32(0.3))]))
    compare(lambda b: b.op("PRelu", [image(b), b.weight(4, 1, 1)]))


RECURRENT = [
    ("LSTM", {}),
    ("LSTM", {"direction": "reverse"}),
    ("LSTM", {"direction": "bidirectional"}),
    ("LSTM", {"clip": 0.3}),
    ("LSTM", {"input_forget": 1}),
    ("LSTM", {"activations": ["HardSigmoid", "Tanh", "Tanh"]}),
    ("LSTM", {"activations": ["Sigmoid", "Relu", "Softsign"]}),
    ("GRU", {}),
    ("GRU", {"linear_before_reset": 1}),
    ("GRU", {"direction": "bidirectional", "linear_before_reset": 1}),
    ("RNN", {}),
    ("RNN", {"direction": "reverse", "activations": ["Relu"]}),
]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize(("op", "options"), RECURRENT)
def test_recurrent(op: str, options: dict[str, Any], lengths: bool, last: bool) -> None:
    from prunec.diagnostics import PrunecError

    gates, directions = {"LSTM": 4, "GRU": 3, "RNN": 1}[op], 2 if options.get("direction") == "bidirectional" else 1
    hidden = 5

    def build(b: Builder) -> str:
        x = b.input("x", [6, 3, 4])
        weights = [
            b.weight(directions, gates * hidden, 4),
            b.weight(directions, gates * hidden, hidden),
            b.weight(directions, 2 * gates * hidden),
        ]
        sequence = b.const(np.array([6, 2, 4], np.int32)) if lengths else ""
        states = [b.weight(directions, 3, hidden)]
        if op == "LSTM":
            states += [b.weight(directions, 3, hidden), b.weight(directions, 3 * hidden)]
        found = b.op(op, [x, *weights, sequence, *states], outputs=2, hidden_size=hidden, **options)
        return found[1 if last else 0]

    if "HardSigmoid" in options.get("activations", ()):
        with pytest.raises(PrunecError, match="PC040"):
            compare(build)
    else:
        compare(build)


@pytest.mark.parametrize("options", [{}, {"is_causal": 1}, {"scale": 0.3}, {"softcap": 2.0}])
def test_attention(options: dict[str, Any]) -> None:
    def build(b: Builder) -> str:
        q, k, v = b.input("q", [2, 5, 12]), b.input("k", [2, 5, 6]), b.input("v", [2, 5, 6])
        return b.op("Attention", [q, k, v, b.weight(5, 5)], q_num_heads=4, kv_num_heads=2, **options)

    compare(build, opset=23)
