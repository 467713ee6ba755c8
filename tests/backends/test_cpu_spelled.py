"""Operators that are spelled out in others, and products of computed matrices, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tvm", reason="needs the [tvm] extra")

from prunec.backends.cpu.isa import AVX512
from prunec.backends.cpu.kernels.row_major import RowMajor
from prunec.backends.cpu.lower.lowering import lower
from prunec.backends.cpu.lower.prepare import prepare
from prunec.backends.onnx.session import make_session, run
from prunec.verify.metrics import max_relative
from tests.backends.kernel_support import needs_x86
from tests.backends.program_support import assert_equal, compiled, lowered
from tests.graph.builder import Builder

pytestmark = needs_x86


def feeds_of(b: Builder, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {i.name: rng.standard_normal(b.shapes[i.name]).astype(np.float32) for i in b.inputs}


def axes(b: Builder, *values: int) -> str:
    return b.const(np.array(values, np.int64))


def normalisations() -> Builder:
    b = Builder(0, 21)
    image = b.relu(b.conv(b.input("x", [2, 3, 7, 5]), 12))
    line = b.input("line", [3, 6, 11])
    for x in (image, line):
        n = b.shapes[x][1]
        b.output(b.op("InstanceNormalization", [x, b.weight(n), b.weight(n)], epsilon=1e-3))
        grouped = b.relu(b.op("GroupNormalization", [x, b.weight(n), b.weight(n)], num_groups=3))
        b.shapes[grouped] = b.shapes[x]  # onnx does not infer it
        b.output(grouped)
        b.output(b.op("LayerNormalization", [x, b.weight(*b.shapes[x][1:]), b.weight(*b.shapes[x][1:])], axis=1))
        b.output(b.op("LpNormalization", [x], axis=1), b.op("LpNormalization", [x], axis=-1, p=1))
        for axis in (1, -1):
            b.output(b.op("LogSoftmax", [x], axis=axis), b.op("ReduceLogSumExp", [x, axes(b, axis)], keepdims=0))
    b.output(b.op("LRN", [image], size=3, alpha=0.3, beta=0.6, bias=1.5))
    b.output(b.op("MeanVarianceNormalization", [image], axes=[0, 2, 3]))
    b.output(b.op("ReduceLogSum", [b.op("Abs", [line]), axes(b, 0, 2)]), b.op("ReduceLogSumExp", [line]))
    return b


def products() -> Builder:
    b = Builder(1, 18)
    a, c = b.input("a", [2, 3, 4, 5, 6]), b.input("c", [3, 1, 6, 7])
    b.output(b.relu(b.op("MatMul", [a, c])))
    left, right, row = b.input("left", [5, 9]), b.input("right", [9, 5]), b.input("row", [1, 5])
    b.output(b.op("Gemm", [left, right, row], alpha=0.5, beta=2.0))
    b.output(b.op("Gemm", [left, left], transA=1), b.op("Gemm", [left, left, b.weight(5, 5)], transB=1))
    b.output(b.op("Gemm", [right, b.weight(9, 8), b.weight(5, 1)], transA=1))
    b.output(b.op("MatMul", [left, b.op("Reshape", [b.weight(9, 1), axes(b, 9)])]))
    b.output(b.op("MatMul", [b.op("Reshape", [row, axes(b, 5)]), left]))
    x, y, z = b.input("p", [2, 3, 4]), b.input("q", [2, 4, 5]), b.input("r", [3, 5, 7])
    for equation, inputs in (
        ("bij,bjk->bik", [x, y]), ("bij,bjk->kib", [x, y]), ("bij,bjk", [x, y]), ("bij,bjk->k", [x, y]),
        ("bij,jk->bik", [x, b.weight(4, 33)]), ("bij,ikl->bjkl", [x, z]), ("bij->ji", [x]), ("...ij->...ji", [x]),
        ("...ij,...jk->...ik", [x, y]), ("bij,bjk,ikl->bl", [x, y, z]), ("bij,bij->bi", [x, x]), ("bij->", [x]),
    ):  # fmt: skip
        b.output(b.op("Einsum", inputs, equation=equation))
    return b


@pytest.mark.parametrize("build", [normalisations, products])
def test_they_equal_onnx_runtime(build: Callable[[], Builder], tmp_path: Path) -> None:
    b = build()
    model = b.model()
    with compiled(model, tmp_path) as package:
        assert_equal(model, package, feeds_of(b))
        assert_equal(model, package, feeds_of(b, 1))


def test_an_einsum_with_weights_is_a_product_with_zero_blocks_left_out() -> None:
    b = Builder(0)
    weight = np.ones((64, 33), np.float32)
    weight[:, :32] = 0
    b.output(b.op("Einsum", [b.input("x", [2, 5, 64]), b.const(weight)], equation="btd,de->bte"))
    (step,) = [s for s in lowered(b.model(), isa=AVX512).steps if isinstance(s.call, RowMajor)]
    assert step.buffers[1].elements < 0.6 * 64 * 48


@pytest.mark.parametrize("equation", ["ii->i", "bij,bjj->bi"])
def test_diagonals_are_refused(equation: str) -> None:
    b = Builder(0)
    inputs = [b.input("x", [3, 3])] if "," not in equation else [b.input("x", [2, 3, 4]), b.input("y", [2, 4, 4])]
    b.output(b.op("Einsum", inputs, equation=equation))
    ready = prepare(b.model())
    _, refusals = lower(list(ready.graph), list(ready.graph.inputs), list(ready.graph.outputs), AVX512)
    assert ["diagonal" in r.reason for r in refusals] == [True]


CASES: list[dict[str, Any]] = [
    {"kernel": (2, 2), "strides": [2, 2]},
    {"kernel": (3, 3), "strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
    {"kernel": (4, 3), "strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [1, 2]},
    {"kernel": (5, 5), "strides": [3, 2], "dilations": [2, 1]},
    {"kernel": (2, 3), "strides": [3, 4], "output_padding": [1, 2]},
    {"kernel": (3, 3), "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"kernel": (3, 4), "strides": [2, 3], "auto_pad": "SAME_LOWER"},
    {"kernel": (3, 3), "strides": [2, 2], "output_shape": [10, 14]},
    {"kernel": (3, 3), "pads": [1, 1, 1, 1]},
    {"kernel": (3, 3), "strides": [2, 2], "group": 3},
    {"kernel": (2, 2), "strides": [2, 2], "group": 12},
]


FEW = [1, 2, 6, 9]
"""One of every option; all together take half a minute to compile."""


@pytest.mark.parametrize(
    "cases", [[CASES[i] for i in FEW], pytest.param(CASES, marks=pytest.mark.slow)], ids=["few", "all"]
)
def test_transposed_convolutions(tmp_path: Path, cases: list[dict[str, Any]]) -> None:
    """Strides, pads, dilations, groups, every way to say how long the result is; activations fused; one axis."""
    b = Builder(2, 18)
    x = b.relu(b.conv(b.input("x", [2, 3, 5, 7]), 12))
    for case in cases:
        kernel, group = case["kernel"], case.get("group", 1)
        own = {key: value for key, value in case.items() if key != "kernel"}
        weight = b.weight(12, 17 if group == 1 else 2, *kernel)
        y = b.op("ConvTranspose", [x, weight, b.weight(17 if group == 1 else 2 * group)], **own)
        b.output(y, b.relu(b.op("ConvTranspose", [x, weight], **own)))
    y = b.op("ConvTranspose", [x, b.weight(12, 12, 3, 3)], pads=[1, 1, 1, 1])
    b.output(b.op("Sigmoid", [b.op("Add", [y, x])]), b.conv(y, 6))
    line = b.input("line", [2, 4, 9])
    for own in ({"strides": [4], "pads": [1, 2]}, {"dilations": [3]}):
        y = b.op("ConvTranspose", [line, b.weight(4, 5, 3), b.weight(5)], **own)
        b.output(b.op("Tanh", [y]))
    model = b.model()
    with compiled(model, tmp_path, threads=2) as package:
        assert_equal(model, package, feeds_of(b))
        assert_equal(model, package, feeds_of(b, 1))


def test_computed_kernels_are_refused() -> None:
    b = Builder(0)
    x = b.input("x", [1, 4, 5, 5])
    b.output(b.op("ConvTranspose", [x, b.op("Exp", [b.input("w", [4, 2, 3, 3])])]))
    ready = prepare(b.model())
    _, refusals = lower(list(ready.graph), list(ready.graph.inputs), list(ready.graph.outputs), AVX512)
    assert ["weights are computed" in r.reason for r in refusals] == [True]


@pytest.mark.parametrize("opset", [17, 18])
def test_what_is_spelled_out_runs_in_onnx_runtime_too(opset: int) -> None:
    """Where reductions have their axes as an attribute and where as an input: a node may end in a part of its own."""
    b = Builder(0, opset)
    x = b.input("x", [2, 6, 5])
    b.output(b.op("InstanceNormalization", [x, b.weight(6), b.weight(6)]), b.op("LogSoftmax", [x], axis=1))
    b.output(b.op("LpNormalization", [x], axis=1), b.op("Einsum", [x], equation="bij->j"))
    model, feeds = b.model(), feeds_of(b)
    wanted, found = run(make_session(model), feeds), run(make_session(prepare(model)), feeds)
    assert all(max_relative(array, found[name]) <= 1e-6 for name, array in wanted.items())


def test_spelling_keeps_weights_known() -> None:
    """A Gemm whose B is constant is no spelled-out product, with the bias of one number per output or without."""
    b = Builder(0)
    b.output(b.gemm(b.input("x", [3, 8]), 5))
    assert [node.op_type for node in prepare(b.model()).graph] == ["Gemm"]
