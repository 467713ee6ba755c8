"""Quantised graphs in generated code: which layers are int8, and that the numbers are those of ONNX Runtime."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("tvm", reason="needs the [tvm] extra")

from prunec.api.quantising import weight_bits
from prunec.backends.cpu.artifact import write_artifact
from prunec.backends.cpu.checking import compare_model
from prunec.backends.cpu.int8_target import Int8Cpu
from prunec.backends.cpu.isa import AVX2, X86_INT8, Isa, int8_isa
from prunec.backends.cpu.kernels.quad_product import QuadProduct
from prunec.backends.cpu.layout import LIBRARY, WEIGHTS
from prunec.backends.cpu.library import Model
from prunec.backends.cpu.lower.held import as_image, layout
from prunec.backends.cpu.lower.int8_tail import tail_of
from prunec.backends.cpu.lower.lowering import Refusal, lower
from prunec.backends.cpu.lower.prepare import prepare
from prunec.backends.cpu.lower.program import Buffer, Program, Tensor
from prunec.backends.cpu.lower.quantisers import wanted_border
from prunec.backends.cpu.lower.state import State
from prunec.diagnostics import GateError
from prunec.graph.shapes import constant
from prunec.passes.canonicalise import canonicalise
from prunec.passes.quantise import unfitted
from prunec.passes.quantise.placement import place
from prunec.passes.quantise.ranges import Grid
from prunec.passes.quantise.write import write
from tests.backends.kernel_support import needs_x86
from tests.graph.builder import Builder
from tests.graph.checks import random_feeds, run

pytestmark = needs_x86
GRIDS = (Grid(0.05, 120, ""), Grid(0.07, 0, ""), Grid(0.04, 131, ""), Grid(0.06, 97, ""))


def quantised(model: ir.Model, bits: int = 8) -> ir.Model:
    """As `quantise` writes it, with grids that differ from value to value."""
    model = canonicalise(model)
    placement = place(model)
    own = {name: GRIDS[number % len(GRIDS)] for number, name in enumerate(placement.values)}
    return write(model, placement, own | {name: own[root] for name, root in placement.shared.items()}, bits)


def lowered(model: ir.Model, isa: Isa | None = None) -> tuple[Program, list[Refusal]]:
    ready = prepare(model)
    return lower(list(ready.graph), list(ready.graph.inputs), list(ready.graph.outputs), isa or int8_isa())


def kinds(program: Program) -> Counter[str]:
    return Counter(type(step.call).__name__ for step in program.steps)


def assert_same(
    model: ir.Model, folder: Path, isa: Isa | None = None, flipped: float = 0.0, most: float = 0.1
) -> Program:
    """Every output equals that of ONNX Runtime, which rounds as the graph says (no layer is fused or reordered).

    `flipped`: share of the elements that may differ, because one that was quantised lay between two steps; `most`: by
    how many 255ths of the largest element.
    """
    program, refusals = lowered(model, isa)
    assert not refusals, [(r.node.op_type, r.reason) for r in refusals]
    write_artifact([program], isa or int8_isa(), folder)
    with Model(folder / LIBRARY, folder / WEIGHTS) as compiled:
        feeds = random_feeds(model, np.random.default_rng(3))
        found = compiled.run(feeds)
    for value, array in zip(model.graph.outputs, run(model, feeds, optimise=False), strict=True):
        name = value.name or ""
        step = np.abs(array).max() / 255
        assert found[name].shape == array.shape and array.std() > 3 * step
        apart = np.abs(found[name] - array) / step
        assert (apart > 0.1).mean() <= flipped, f"{name}: {(apart > 0.1).mean():.1%}"
        assert apart.max() <= most, f"{name}: {apart.max():.1f} steps"
    return program


def branches() -> ir.Model:
    """A strided stem of 3 channels, grouped and depthwise layers, residuals, joined branches, pools, a head."""
    b = Builder(0, 18)
    x = b.input("x", [2, 3, 17, 13])
    stem = b.op("MaxPool", [b.relu(b.conv(x, 24, stride=2, bias=True))], kernel_shape=[3, 3], strides=[2, 2],
                pads=[1, 1, 1, 1])  # fmt: skip
    wide = b.op(
        "Clip", [b.conv(stem, 24, 1, bias=True), b.const(np.array(0, np.float32)), b.const(np.array(6, np.float32))]
    )
    deep = b.relu(b.conv(wide, 24, 3, group=24, bias=True))
    body = b.relu(b.op("Add", [b.conv(deep, 24, 1), stem]))
    odd = np.random.default_rng(0).standard_normal((16, 6, 3, 3)).astype(np.float32)
    odd[3], odd[4, 0, 0, 0] = 0, 90.0  # a channel without weights, and one in which an outlier leaves the rest at zero
    left = b.relu(b.op("Conv", [body, b.const(odd)], pads=[1, 1, 1, 1], group=4))
    right = b.conv(body, 9, 1, bias=True)
    joined = b.op("Concat", [left, right, body], axis=1)
    bigger = b.op(
        "Resize", [b.conv(joined, 8, 1), "", b.const(np.array([1, 1, 2, 2], np.float32))], mode="nearest",
        coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    )  # fmt: skip
    b.output(b.conv(bigger, 6, 3))
    flat = b.op("Flatten", [b.op("GlobalAveragePool", [b.conv(joined, 20, 3, bias=True)])])
    b.output(b.op("Gemm", [flat, b.weight(10, 20), b.const(np.ones(10, np.float32))], transB=1))
    return b.model()


def waves() -> ir.Model:
    """Strided layers over one and two channels, whose kernels the stride divides, and does not."""
    b = Builder(2, 18)
    b.output(b.op("Conv", [b.input("x", [2, 1, 64, 1]), b.weight(8, 1, 16, 1)], strides=[4, 1]))
    b.output(b.op("Conv", [b.input("y", [1, 2, 3, 30]), b.weight(5, 2, 2, 7)], strides=[1, 2]))
    return b.model()


def sentences() -> ir.Model:
    """One block of a transformer over rows of 12 tokens, and a convolution along them."""
    b = Builder(1, 18)
    x = b.input("x", [2, 12, 32])
    norm = b.op("LayerNormalization", [x, b.weight(32), b.weight(32)])
    q, k, v = (b.op("Add", [b.op("MatMul", [norm, b.weight(32, 32)]), b.weight(32)]) for _ in range(3))
    scores = b.op("Softmax", [b.op("MatMul", [q, b.op("Transpose", [k], perm=[0, 2, 1])])])
    out = b.op("Add", [b.op("MatMul", [b.op("MatMul", [scores, v]), b.weight(32, 32)]), x])
    wide = b.op("MatMul", [out, b.weight(32, 48)])
    half = b.op("Mul", [wide, b.op("Sigmoid", [wide])])
    b.output(b.op("Add", [b.op("MatMul", [half, b.weight(48, 32)]), out]))
    b.output(b.op("Conv", [b.op("Transpose", [out], perm=[0, 2, 1]), b.weight(12, 32, 3)], pads=[1, 1]))
    return b.model()


def test_images_stay_in_bytes_and_are_the_same(tmp_path: Path) -> None:
    program = assert_same(quantised(branches()), tmp_path)
    found = kinds(program)
    assert not program.in_float
    assert found["QuadProduct"] >= 7 and found["QuadDepthwise"] == 1 and found["QuadMaxPool"] == 1
    assert found["QuadMean"] == 1 and not found.keys() & {"RowMajor", "Depthwise", "Pool"}
    residual = [step for step in program.steps if sum("quantise" in node for node in step.nodes) >= 3]
    assert residual, "an addition of two values in 8 bits ends in the layer that makes one of them"


def test_neighbours_of_few_channels_share_a_quad(tmp_path: Path) -> None:
    program = assert_same(quantised(waves()), tmp_path)
    products = [step.call for step in program.steps if isinstance(step.call, QuadProduct)]
    assert [product.columns for product in products] == [4, 8] and not program.in_float


def test_outputs_may_be_there_in_bytes(tmp_path: Path) -> None:
    """What a quantiser ends in beside an output in float: the first was asked for a tensor while the other had one."""
    b = Builder(0, 18)
    b.output(b.op("Gemm", [b.input("x", [3, 8]), b.weight(5, 8)], transB=1))
    model = quantised(b.model())
    model.graph.outputs.append(numbers_behind(model, "x"))
    assert_same(model, tmp_path)


def numbers_behind(model: ir.Model, name: str) -> ir.Value:
    """What the value `name` is after it was rounded."""
    value = next(value for node in model.graph for value in node.inputs if value is not None and value.name == name)
    [quantiser] = [use.node for use in value.uses() if use.node.op_type == "QuantizeLinear"]
    return next(use.node.outputs[0] for use in quantiser.outputs[0].uses())


def test_single_roundings_are_those_of_fused_operators(tmp_path: Path) -> None:
    """Millions of sums, some of them near the middle between two steps; residuals added in both orders."""
    b = Builder(4, 18)
    y = b.relu(b.conv(b.input("x", [1, 16, 128, 128]), 64, 1, bias=True))
    first = b.op("Add", [b.conv(y, 64, 1), y])
    second = b.relu(b.op("Add", [first, b.conv(first, 64, 1, bias=True)]))
    b.output(b.conv(second, 4, 1))
    model = quantised(b.model(), weight_bits())
    model.graph.outputs.extend(numbers_behind(model, name) for name in (y, first, second))
    write_artifact([lowered(model)[0]], int8_isa(), tmp_path)
    feeds = random_feeds(model, np.random.default_rng(5))
    with Model(tmp_path / LIBRARY, tmp_path / WEIGHTS) as compiled:
        found = compiled.run(feeds)
    for value, wanted in list(zip(model.graph.outputs, run(model, feeds), strict=True))[1:]:
        assert len(np.unique(wanted)) > 50
        np.testing.assert_array_equal(found[value.name or ""], wanted)


def test_biases_keep_all_their_bits() -> None:
    """30 of them, beside weights that are small, where float32 has 24."""
    b = Builder(4, 18)
    bias = np.random.default_rng(5).uniform(0.0, 10.0, 64).astype(np.float32)
    y = b.op(
        "Conv",
        [
            b.input("x", [1, 16, 8, 8]),
            b.const(np.random.default_rng(6).standard_normal((64, 16, 1, 1)).astype(np.float32) * np.float32(1e-6)),
            b.const(bias),
        ],
    )
    b.output(b.conv(y, 4, 1))
    model = quantised(b.model())
    program, _ = lowered(model)
    first = next(step for step in program.steps if isinstance(step.call, QuadProduct))
    named = dict(zip((argument.name for argument in first.call.arguments()), first.buffers, strict=True))
    conv = next(node for node in model.graph if node.op_type == "Conv")
    x, integers, biases = (given.producer().inputs for given in conv.inputs)  # type: ignore[union-attr]
    moved = constant(x[2]).astype(np.int64) * constant(integers[0]).sum(axis=(1, 2, 3), dtype=np.int64)
    assert np.abs(constant(biases[0])).max() > 2**28
    np.testing.assert_array_equal(named["bias"].data + moved, constant(biases[0]))


def test_products_of_rows_are_int8() -> None:
    program, refusals = lowered(quantised(sentences()))
    assert not refusals and kinds(program)["QuadProduct"] == 7 and not program.in_float


@pytest.mark.slow
def test_rows_are_the_same(tmp_path: Path) -> None:
    assert_same(quantised(sentences()), tmp_path, flipped=0.12, most=4)  # LayerNorm and softmax are not exact


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in X86_INT8 if name != int8_isa().name])
def test_other_instructions_give_the_same(name: str, tmp_path: Path) -> None:
    from prunec.backends.cpu.isa import cpu_flags

    isa = X86_INT8[name]
    if not cpu_flags().issuperset(isa.flags):
        pytest.skip("this CPU lacks them")
    assert_same(quantised(branches()), tmp_path, isa)


def test_int8_activations_of_other_quantisers(tmp_path: Path) -> None:
    """ONNX Runtime's own default: int8 activations, zero points of any sign."""
    model = quantised(branches())
    for value in list(model.graph.initializers.values()):
        if value.dtype == ir.DataType.UINT8 and value.const_value is not None:
            moved = (value.const_value.numpy().astype(np.int16) - 128).astype(np.int8)
            value.const_value, value.dtype = ir.Tensor(moved, name=value.name), ir.DataType.INT8
    for node in model.graph:
        if node.op_type == "QuantizeLinear":
            node.outputs[0].dtype = ir.DataType.INT8
    program = assert_same(model, tmp_path)
    assert kinds(program)["QuadProduct"] >= 7
    twin, _ = lowered(quantised(branches()))
    assert kinds(program) == kinds(twin)


def test_what_has_no_int8_kernel_is_computed_in_float_and_said() -> None:
    """Weights with a scale for each input, and a depthwise layer whose result is not quantised."""
    b = Builder(0, 18)
    x = b.input("x", [1, 8, 6, 6])
    b.output(b.conv(b.relu(b.conv(x, 8, 1)), 8, 3, group=8))
    model = quantised(b.model())
    last = [node for node in model.graph if node.op_type == "Conv"][-1]
    program, refusals = lowered(model)
    assert not refusals and list(program.in_float) == [last.name]
    assert "depthwise" in program.in_float[last.name or ""] and kinds(program)["Depthwise"] == 1


def test_sums_that_may_leave_32_bits_are_computed_in_float() -> None:
    b = Builder(0, 18)
    b.output(b.op("Conv", [b.input("x", [1, 4, 3, 3]), b.weight(4, 4, 1, 1), b.const(np.full(4, 3e9, np.float32))]))
    program, refusals = lowered(unfitted(canonicalise(b.model())))
    assert not refusals and len(program.in_float) == 1 and not kinds(program)["QuadProduct"]


@pytest.mark.parametrize(("flags", "bits", "words"), [((), 7, 1), (("avx512_vnni",), 8, 2)])
def test_what_is_timed_has_the_kernels_of_what_a_compile_ships(
    monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], bits: int, words: int
) -> None:
    """Weights of as many bits as a compile gives them: without VNNI code for 7 is not that for 8."""
    b = Builder(0, 18)
    b.output(b.gemm(b.relu(b.gemm(b.input("x", [4, 16]), 16)), 8))
    monkeypatch.setattr("prunec.backends.cpu.isa.cpu_flags", lambda: frozenset((*AVX2.flags, *flags)))
    assert weight_bits() == bits
    model = Int8Cpu().form(canonicalise(b.model()))
    found = [constant(value) for value in model.graph.initializers.values() if value.dtype == ir.DataType.INT8]
    largest = max(int(np.abs(array).max()) for array in found if array is not None and array.ndim > 1)
    assert largest == 2 ** (bits - 1) - 1
    program, _ = lowered(model, AVX2)
    products = [step.call for step in program.steps if isinstance(step.call, QuadProduct)]
    assert products and {call.words for call in products} == {words}


def test_targets_without_int8_kernels_compute_what_the_bytes_stand_for() -> None:
    from prunec.backends.cpu.isa import ARM64

    program, refusals = lowered(quantised(branches()), ARM64)
    assert not refusals and not any("Quad" in kind for kind in kinds(program))


def test_borders_are_what_the_readers_want() -> None:
    model = quantised(branches())
    wide = {wanted_border(node.outputs[0]) for node in model.graph if node.op_type == "QuantizeLinear"}
    assert (1, 1, 1, 1) in wide and (0, 0, 0, 0) in wide


def test_a_tail_ends_where_a_value_has_two_readers() -> None:
    b = Builder(0, 18)
    y = b.conv(b.input("x", [1, 8, 6, 6]), 8, 1)
    z = b.relu(y)
    b.output(b.conv(z, 8, 3), b.op("Add", [z, z]))
    model = quantised(b.model())
    node = next(node for node in model.graph if node.op_type == "Conv")
    tail = tail_of(State(int8_isa()), node, 8)
    assert [own.op_type for own in tail.nodes] == ["Relu", "QuantizeLinear"] and tail.low == 0


def test_layouts_of_images_and_rows() -> None:
    assert (layout((2, 5, 4, 3), 1).height, layout((2, 5, 4), 1).width) == (4, 4)
    rows = layout((2, 7, 12), 2)
    assert (rows.batch, rows.channels, rows.height, rows.width) == (1, 12, 1, 14)
    buffer = Buffer("arena", "float32", 999)
    assert as_image(Tensor((2, 7, 12), "float32", buffer, 0, (84, 12, 1)), 2) is not None
    assert as_image(Tensor((2, 7, 12), "float32", buffer, 0, (100, 12, 1)), 2) is None


@dataclass(frozen=True)
class Answers:
    """A compiled model that is `off` by so many steps of its range."""

    model: ir.Model
    off: float

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = run(self.model, feeds, optimise=False)
        names = [value.name or "" for value in self.model.graph.outputs]
        return {name: a + self.off * np.abs(a).max() / 255 for name, a in zip(names, found, strict=True)}


def test_more_than_one_step_is_refused() -> None:
    model = quantised(waves())
    feeds = [random_feeds(model, np.random.default_rng(3))]
    assert compare_model(model, Answers(model, 0), feeds, 1).max_rel == 0
    with pytest.raises(GateError, match="PC526"):
        compare_model(model, Answers(model, 5), feeds, 1)


def test_avx2_is_a_fallback() -> None:
    program, _ = lowered(quantised(branches()), AVX2)
    assert kinds(program)["QuadProduct"] >= 7
