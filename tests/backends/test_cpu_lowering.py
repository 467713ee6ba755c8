"""Whole programs against ONNX Runtime: layouts, fusion, views, every operator with a rule, at awkward shapes.

Many operators share a graph, each with an output of its own, because linking is what takes time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto

pytest.importorskip("tvm", reason="needs the [tvm] extra")

from prunec.backends.cpu.isa import AVX512
from prunec.backends.cpu.kernels.block_product import BlockProduct
from prunec.backends.cpu.kernels.panel_product import PanelProduct
from prunec.backends.cpu.kernels.row_major import RowMajor
from prunec.backends.cpu.layout import LIBRARY, WEIGHTS
from prunec.backends.cpu.library import Model
from prunec.backends.cpu.lower.candidates import Choice, Product, candidates
from prunec.backends.cpu.lower.fuse import grow
from prunec.backends.cpu.lower.lowering import lower
from prunec.backends.cpu.lower.memory import plan_arena
from prunec.backends.cpu.lower.prepare import prepare
from prunec.backends.cpu.lower.program import Buffer, Step, Tensor, plain_strides
from prunec.backends.cpu.lower.routines import Fill
from prunec.backends.cpu.lower.views import expanded, reshaped, sliced, transposed
from prunec.diagnostics import PrunecError
from tests.backends.kernel_support import needs_x86
from tests.backends.program_support import assert_equal, compiled, lowered
from tests.graph.builder import Builder
from tests.graph.checks import random_feeds

pytestmark = needs_x86


def ints(b: Builder, *values: int) -> str:
    return b.const(np.array(values, np.int64))


def number(b: Builder, value: float) -> str:
    return b.const(np.array(value, np.float32))


def images() -> ir.Model:
    """Convolutions of all kinds, epilogues, pools, concatenations and resizes over one image."""
    b = Builder(0, 18)
    x = b.input("x", [2, 3, 13, 11])
    stem = b.relu(b.conv(x, 24, stride=2))
    wide = b.op("Clip", [b.conv(stem, 33), number(b, 0.0), number(b, 6.0)])
    b.output(wide)
    y = b.conv(wide, 24, 1)
    shortcut = b.relu(b.op("Add", [y, stem]))
    b.output(shortcut, b.conv(shortcut, 24, 5, group=24), b.conv(shortcut, 48, 3, group=4, bias=False))
    gate = b.op("Sigmoid", [b.conv(b.op("GlobalAveragePool", [shortcut]), 24, 1)])
    b.output(b.op("Mul", [shortcut, gate]))
    silu = b.conv(shortcut, 16, 3)
    silu = b.op("Mul", [silu, b.op("Sigmoid", [silu])])
    b.output(silu, b.op("HardSwish", [b.conv(silu, 20, 1)]), b.op("PRelu", [silu, b.weight(16, 1, 1)]))
    dilated = b.op("Conv", [silu, b.weight(8, 16, 3, 3)], pads=[2, 1, 0, 3], dilations=[2, 2], strides=[1, 2])
    b.output(dilated, b.op("LeakyRelu", [dilated], alpha=0.2), b.op("Elu", [dilated]))
    pools = [
        b.op("MaxPool", [silu], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        b.op("AveragePool", [silu], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1),
        b.op("AveragePool", [silu], kernel_shape=[2, 3], auto_pad="SAME_UPPER", strides=[2, 2]),
    ]
    for op in ("MaxPool", "AveragePool"):
        b.output(b.op(op, [silu], kernel_shape=[2, 3], strides=[2, 2], ceil_mode=1))
    b.output(*pools, b.op("Concat", [*pools], axis=1), b.op("GlobalMaxPool", [silu]))
    bigger = b.op(
        "Resize", [silu, "", b.const(np.array([1, 1, 2, 2], np.float32))], mode="nearest",
        coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    )  # fmt: skip
    b.output(bigger, b.op("DepthToSpace", [silu], blocksize=2), b.op("DepthToSpace", [silu], blocksize=2, mode="CRD"))
    padded = b.op("Pad", [silu, ints(b, 0, 0, 1, 2, 0, 0, 0, 1)])
    b.output(b.op("Conv", [padded, b.weight(4, 16, 3, 3)]), padded)
    flat = b.op("Flatten", [b.op("MaxPool", [silu], kernel_shape=[2, 2], strides=[2, 2])])
    b.output(b.op("Gemm", [flat, b.weight(b.shapes[flat][1], 10), b.weight(10)], alpha=0.5, beta=2.0))
    b.output(b.op("Softmax", [silu], axis=1), b.op("ReduceMean", [silu, ints(b, 2, 3)], keepdims=0))
    return b.model()


def sequences() -> ir.Model:
    """Attention, normalisation and reductions over token numbers; a one-dimensional convolution."""
    b = Builder(1, 20)
    tokens, mask = b.input("tokens", [2, 9], TensorProto.INT64), b.input("mask", [2, 9], TensorProto.INT64)
    x = b.op("Gather", [b.weight(17, 24), tokens])
    x = b.op("LayerNormalization", [x, b.weight(24), b.weight(24)], axis=-1)

    def heads(order: list[int]) -> str:
        y = b.op("Add", [b.op("MatMul", [x, b.weight(24, 24)]), b.weight(24)])
        return str(b.op("Transpose", [b.op("Reshape", [y, ints(b, 2, 9, 3, 8)])], perm=order))

    query, key, value = heads([0, 2, 1, 3]), heads([0, 2, 3, 1]), heads([0, 2, 1, 3])
    absent = b.op("Sub", [number(b, 1.0), b.op("Cast", [mask], to=TensorProto.FLOAT)])
    bias = b.op("Unsqueeze", [b.op("Mul", [absent, number(b, -1e9)]), ints(b, 1, 2)])
    scores = b.op("Add", [b.op("Div", [b.op("MatMul", [query, key]), number(b, 8**0.5)]), bias])
    mixed = b.op("MatMul", [b.op("Softmax", [scores], axis=-1), value])
    joined = b.op("Reshape", [b.op("Transpose", [mixed], perm=[0, 2, 1, 3]), ints(b, 2, 9, 24)])
    y = b.op("Add", [b.op("MatMul", [joined, b.weight(24, 24)]), x])
    hidden = b.op("MatMul", [y, b.weight(24, 40)])
    written_out = b.op("Erf", [b.op("Div", [hidden, number(b, 2**0.5)])])
    gelu = b.op("Mul", [b.op("Mul", [hidden, b.op("Add", [written_out, number(b, 1.0)])]), number(b, 0.5)])
    b.output(y, gelu, b.op("Gelu", [hidden], approximate="tanh"), b.op("Tanh", [hidden]))
    b.output(b.op("Conv", [b.op("Transpose", [gelu], perm=[0, 2, 1]), b.weight(12, 40, 3)], pads=[1, 1]))
    for op in ("ReduceSum", "ReduceMax", "ReduceL2", "ReduceMin"):
        b.output(b.op(op, [y, ints(b, 1)], keepdims=0), b.op(op, [y, ints(b, -1)]))
    b.output(b.op("ReduceMean", [y, ints(b, 0, 2)]), b.op("Pow", [y, number(b, 2.0)]), b.op("Softplus", [y]))
    b.output(b.op("Slice", [y, ints(b, 8, 1), ints(b, -99, 9), ints(b, 1, 2), ints(b, -2, 3)]))
    first, second = b.op("Split", [y], 2, axis=2, num_outputs=2)
    b.output(b.op("Mul", [first, b.op("Sigmoid", [second])]), b.op("Concat", [second, first, y], axis=2))
    b.output(b.op("Expand", [b.op("Gather", [y, b.const(np.array(3))], axis=1), ints(b, 3, 2, 24)]))
    is_small = b.op("Less", [tokens, b.const(np.array(5, np.int64))])
    both = b.op("And", [is_small, b.op("Equal", [mask, b.const(np.array(1, np.int64))])])
    b.output(both, b.op("Not", [both]), dtype=TensorProto.BOOL)
    spread = b.op("Unsqueeze", [both, ints(b, 2)])
    b.output(b.op("Where", [spread, y, number(b, -1.0)]))
    b.output(b.op("Mul", [tokens, b.const(np.array(3, np.int64))]), dtype=TensorProto.INT64)
    return b.model()


@pytest.mark.parametrize("build", [images, sequences])
def test_programs_equal_onnx_runtime(build: Callable[[], ir.Model], tmp_path: Path) -> None:
    model = build()
    rng = np.random.default_rng(0)
    feeds = random_feeds(model, rng)
    if "mask" in feeds:
        feeds["tokens"], feeds["mask"] = rng.integers(-17, 17, (2, 9)), rng.integers(0, 2, (2, 9))
        feeds["mask"][:, 0] = 1
    with compiled(model, tmp_path) as alone, Model(tmp_path / LIBRARY, tmp_path / WEIGHTS, threads=2) as shared:
        assert_equal(model, alone, feeds)
        assert_equal(model, alone, feeds)  # nothing of the first run is left in the arena
        assert_equal(model, shared, feeds)


@pytest.mark.slow
def test_products_in_panels_equal_onnx_runtime(tmp_path: Path) -> None:
    """Every product with the last of its candidates: strides, dilations, groups, images with their channels first."""
    model, chosen = images(), list[Choice]()

    def last(product: Product) -> Choice:
        chosen.append(candidates(product)[-1])
        return chosen[-1]

    feeds = random_feeds(model, np.random.default_rng(0))
    with (
        compiled(model, tmp_path, choose=last) as alone,
        Model(tmp_path / LIBRARY, tmp_path / WEIGHTS, threads=2) as shared,
    ):
        assert {choice.family for choice in chosen} == {"panel"}
        assert_equal(model, alone, feeds)
        assert_equal(model, shared, feeds)


@pytest.mark.parametrize(("rows", "family"), [(4, PanelProduct), (16, RowMajor)])
def test_fine_zeros_need_panels(rows: int, family: type) -> None:
    b = Builder(0)
    mask = np.random.default_rng(0).random((64 // rows, 32 * 9)) < 0.3
    weight = b.const((np.repeat(mask, rows, axis=0).reshape(64, 32, 3, 3) * 1.5).astype(np.float32))
    b.output(b.op("Conv", [b.input("x", [1, 32, 12, 12]), weight], pads=[1, 1, 1, 1]))
    assert [type(step.call) for step in lowered(b.model()).steps if isinstance(step.call, BlockProduct)] == [family]


def test_what_is_fused() -> None:
    """Bias, addition of the shortcut and activation end in the kernel of the convolution."""
    b = Builder(0)
    x = b.input("x", [1, 16, 8, 8])
    y = b.relu(b.conv(x, 16))
    b.output(b.relu(b.op("Add", [b.conv(y, 16), y])))
    program = lowered(b.model())
    kernels = [step for step in program.steps if isinstance(step.call, RowMajor)]
    assert [len(step.nodes) for step in kernels] == [2, 3]
    assert len(program.steps) == 2 + 1 + 2 + 1  # copies of the input and the output, borders of x and y


def test_a_cluster_ends_where_two_values_are_needed() -> None:
    b = Builder(0)
    x = b.input("x", [1, 4])
    y = b.relu(x)
    b.output(y, b.op("Exp", [y]))
    (relu, _) = b.model().graph
    assert [node.op_type for node in grow(relu.outputs[0], lambda value: True, relu).nodes] == ["Relu"]


def test_zero_blocks_are_left_out() -> None:
    b = Builder(0)
    x = b.input("x", [4, 33])
    weight = np.ones((33, 64), np.float32)
    weight[:30] = 0
    b.output(b.op("MatMul", [x, b.const(weight)]))
    (step,) = lowered(b.model()).steps
    assert isinstance(step.call, RowMajor)
    values = step.buffers[1]
    assert values.elements == 3 * 64


@pytest.mark.parametrize(
    ("op", "attributes", "reason"),
    [
        ("LpPool", {"kernel_shape": [2, 2]}, "no generated code"),
        ("AveragePool", {"kernel_shape": [3, 3], "ceil_mode": 1, "count_include_pad": 1}, "ceil_mode"),
    ],
)
def test_refusals_have_reasons(op: str, attributes: dict[str, object], reason: str) -> None:
    b = Builder(0)
    x = b.input("x", [1, 4, 8, 8])
    b.output(b.op(op, [x], **attributes))
    model = prepare(b.model())
    _, (refusal,) = lower(list(model.graph), list(model.graph.inputs), list(model.graph.outputs), AVX512)
    assert refusal.node.op_type == op and reason in refusal.reason


def test_unknown_lengths_are_refused() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 9, opset_import: ["" : 17]> m (float[n, t, 4] x) => (float[n, t, 4] y) { y = Relu(x) }'
    )
    with pytest.raises(PrunecError, match="PC452") as raised:
        prepare(model)
    assert raised.value.diagnostic.hint == "make it static with --input-shape x=1,N,4"
    assert prepare(model, {"x": (2, 3, 4)}).graph.outputs[0].shape == ir.Shape([2, 3, 4])


def test_the_arena_shares_memory_but_never_at_the_same_time() -> None:
    rng = np.random.default_rng(0)
    buffers = [Buffer("arena", "float32", int(n)) for n in rng.integers(1, 1000, 40)]
    steps = [Step(Fill(), (buffers[i], buffers[j])) for i, j in rng.integers(0, 40, (60, 2))]
    offsets, size = plan_arena(steps)
    lives = {b: [i for i, s in enumerate(steps) if b in s.buffers] for b in offsets}
    for one in offsets:
        assert offsets[one] % 64 == 0 and offsets[one] + one.bytes <= size
        for other in offsets:
            together = max(lives[one][0], lives[other][0]) <= min(lives[one][-1], lives[other][-1])
            if one is not other and together:
                assert offsets[one] + one.bytes <= offsets[other] or offsets[other] + other.bytes <= offsets[one]
    assert size < sum(-(-b.bytes // 64) * 64 for b in offsets)


def shortcuts(*, is_used_later: bool) -> ir.Model:
    """Two residual blocks of 1×1 convolutions, in tiles that do not overlap; the first shortcut may be needed again."""
    b = Builder(0)
    start = value = b.relu(b.conv(b.input("x", [1, 16, 7, 12]), 32, 1))
    for _ in range(2):
        value = b.relu(b.op("Add", [b.conv(b.relu(b.conv(value, 16, 1)), 32, 1), value]))
    b.output(b.op("GlobalAveragePool", [b.op("Mul", [value, start]) if is_used_later else value]))
    return prepare(b.model())


@pytest.mark.parametrize("is_used_later", [False, True])
def test_a_sum_takes_the_place_of_a_shortcut_that_nobody_needs_any_more(is_used_later: bool, tmp_path: Path) -> None:
    model = shortcuts(is_used_later=is_used_later)
    program = lowered(model)
    steps = [step for step in program.steps if isinstance(step.call, RowMajor) and step.call.operands]
    offsets, _ = plan_arena(program.steps)
    operands = [step.buffers[5:-1] for step in steps]
    reused = [offsets[step.buffers[-1]] in [offsets[b] for b in own] for step, own in zip(steps, operands, strict=True)]
    assert reused == [not is_used_later, True]
    with compiled(model, tmp_path) as found:
        assert_equal(model, found, random_feeds(model, np.random.default_rng(0)))


def array(x: Tensor, data: np.ndarray) -> np.ndarray:
    return np.lib.stride_tricks.as_strided(data[x.offset :], x.shape, [s * data.itemsize for s in x.strides])


def test_views_are_what_numpy_says() -> None:
    shape = (2, 6, 4, 5)
    data = np.arange(240, dtype=np.float32)
    x, full = Tensor(shape, "float32", Buffer("arena", "float32", 240), 0, plain_strides(shape)), data.reshape(shape)
    t = transposed(x, (0, 2, 3, 1))
    assert np.array_equal(array(t, data), full.transpose(0, 2, 3, 1))
    for wanted in ((12, 20), (2, 3, 2, 20), (240,), (1, 2, 1, 6, 20, 1)):
        view = reshaped(x, wanted)
        assert view is not None and np.array_equal(array(view, data), full.reshape(wanted))
    assert reshaped(t, (2, 20, 6)) is not None and reshaped(t, (240,)) is None
    assert np.array_equal(array(sliced(x, 1, 4, 2, -3), data), full[:, 4::-3])
    row = sliced(x, 0, 1, 1)
    assert np.array_equal(array(expanded(row, (3, *shape[1:])), data), np.broadcast_to(full[1:], (3, *shape[1:])))


def test_no_number_that_is_none_turns_into_one(tmp_path: Path) -> None:
    """inf − inf inside a model stays NaN behind every activation, in vectors and in what is left over from them."""
    b = Builder(0, 18)
    y = b.op("Sub", [b.input("x", [1, 37]), b.input("z", [1, 37])])
    b.output(y, *(b.op(op, [y]) for op in ("Relu", "Sigmoid", "Tanh", "Erf", "Exp", "Elu", "LeakyRelu", "HardSwish")))
    b.output(b.op("Clip", [y, number(b, 0.0), number(b, 6.0)]), b.op("Abs", [y]))
    b.output(b.op("Softmax", [y]), b.op("ReduceSum", [y, ints(b, 1)]))
    model = b.model()
    given = np.linspace(-3, 3, 37, dtype=np.float32)[None]
    given[0, [0, 5, 36]] = np.inf, -np.inf, np.inf
    with compiled(model, tmp_path) as package:
        assert_equal(model, package, {"x": given, "z": given / 2})
        assert all(np.isnan(array).any() for array in package.run({"x": given, "z": given / 2}).values())


def test_what_is_zero_for_numbers_only(tmp_path: Path) -> None:
    """x − x, 0 · x and 0 / x of what is infinite or zero, by themselves and in a chain."""
    b = Builder(0, 18)
    x, zero = b.input("x", [1, 37]), number(b, 0.0)
    b.output(b.op("Sub", [x, x]), b.op("Mul", [x, zero]), b.op("Mul", [zero, x]), b.op("Div", [zero, x]))
    twice = b.op("Mul", [x, number(b, 2.0)])
    b.output(b.op("Sub", [twice, b.op("Mul", [x, number(b, 2.0)])]), b.op("Div", [x, x]))
    b.output(b.op("Add", [x, b.op("Neg", [x])]), b.op("Relu", [b.op("Sub", [twice, twice])]))
    model = b.model()
    given = np.linspace(-3, 3, 37, dtype=np.float32)[None]
    given[0, [0, 5, 18, 36]] = np.inf, -np.inf, 0, np.inf
    with compiled(model, tmp_path) as package:
        assert_equal(model, package, {"x": given})
        assert [int(np.isnan(array).sum()) for array in package.run({"x": given}).values()] == [3, 3, 3, 1, 3, 4, 3, 3]
