"""INT8 with sparse weights: zeros stay, scales are FP16's, products stay close; and either form of a product."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_ir.passes.common import ShapeInferencePass

from prunec.backends.base import BuildOptions
from prunec.backends.onnx.session import make_session, run
from prunec.backends.tensorrt.checker import count
from prunec.backends.tensorrt.eligibility import judge
from prunec.backends.tensorrt.half import to_half
from prunec.backends.tensorrt.lower import BOUNDS, check_lowering_options, compare, prepared
from prunec.backends.tensorrt.products import with_products
from prunec.backends.tensorrt.quantise import LEVELS, quantised_weight, with_half_scales
from prunec.diagnostics import GateError, PrunecError
from prunec.verify.metrics import worst_relative
from tests.graph.builder import Builder
from tests.tensorrt.test_checker import sparse

INT8 = BuildOptions(builds=False, precision="int8")


def network() -> ir.Model:
    """A convolution, a Gemm, a MatMul, all 2:4; the Gemm's input feeds another layer as well."""
    b = Builder(0)
    x = b.input("x", [2, 8, 6, 6])
    y = b.relu(b.op("Conv", [x, b.const(sparse((16, 8, 3, 3), 1) / 8, "conv.w"), b.weight(16)], pads=[1] * 4))
    y = b.reshape(b.op("GlobalAveragePool", [y]), [2, 16])
    z = b.op("Gemm", [y, b.const(sparse((32, 16), 1) / 4, "gemm.w"), b.weight(32)], transB=1)
    w = b.op("MatMul", [y, b.const(sparse((16, 32), 0) / 4, "matmul.w")])
    b.output(b.op("Add", [z, w]))
    return ShapeInferencePass()(b.model()).model


def data() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(3)
    return [{"x": rng.standard_normal((2, 8, 6, 6)).astype(np.float32)} for _ in range(3)]


def planned(model: ir.Model) -> list[str]:
    return [verdict.node for verdict in judge(model)]


@pytest.mark.parametrize("axis", [0, 1, None])
def test_zeros_stay_zero_and_the_largest_value_does_not_clip(axis: int | None) -> None:
    weight = sparse((8, 16), 1)
    integers, steps = quantised_weight(weight, axis)
    assert integers.dtype == np.int8 and not integers[weight == 0].any() and count(integers, 1).is_sparse
    assert np.array_equal(steps, steps.astype(np.float16))
    shaped = steps if axis is None else steps.reshape([-1 if i == axis else 1 for i in range(2)])
    assert np.abs(integers * shaped - weight).max() <= float(steps.max()) / 2 + 1e-6
    assert np.abs(integers).max() in (LEVELS - 1, LEVELS)


def test_a_channel_of_zeros_has_a_scale() -> None:
    integers, steps = quantised_weight(np.zeros((2, 4), np.float32), 0)
    assert not integers.any() and steps.tolist() == [1, 1]


@pytest.mark.parametrize("opset", [18, 19])
def test_planned_layers_stand_between_quantisers_and_stay_sparse(opset: int) -> None:
    model = network()
    model.graph.opset_imports[""] = opset
    names = planned(model)
    made = prepared(model, names, data(), INT8)
    assert made.opset_imports[""] == 19
    verdicts = {verdict.node: verdict for verdict in judge(made)}
    assert all(verdicts[name].is_sparse for name in names)
    for name in names:
        node = next(node for node in made.graph if node.name == name)
        producers = [value.producer() for value in node.inputs[:2] if value is not None]
        assert [producer.op_type for producer in producers if producer is not None] == ["DequantizeLinear"] * 2
    assert sum(node.op_type == "QuantizeLinear" for node in made.graph) == 2  # two layers read the same value
    assert model.opset_imports[""] == opset and not any("Linear" in node.op_type for node in model.graph)


def test_layers_that_are_not_planned_stay_as_they_are() -> None:
    model = network()
    (first, *_) = planned(model)
    made = prepared(model, [first], data(), INT8)
    kinds = [node.op_type for node in made.graph]
    assert kinds.count("QuantizeLinear") == 1 and kinds.count("DequantizeLinear") == 2


def test_numbers_stay_close_in_fp16_too() -> None:
    model = network()
    made = prepared(model, planned(model), data(), INT8)
    half = to_half(made).model
    onnx.checker.check_model(ir.to_proto(half), full_check=True)
    scales = [v for v in half.graph.initializers.values() if (v.name or "").endswith("scale.fp16")]
    assert scales and all(value.dtype == ir.DataType.FLOAT16 for value in scales)
    dense, first, second = (make_session(m) for m in (model, made, half))
    for feeds in data():
        expected = run(dense, feeds)
        assert 0 < worst_relative(expected, run(first, feeds)) < 0.05
        assert worst_relative(expected, run(second, feeds)) < 0.06


def test_small_scales_with_a_bias_are_judged_as_they_are_written() -> None:
    """ONNX Runtime would quantise the bias by the product of the two FP16 scales, which is 0 in FP16."""
    b = Builder(0)
    x = b.input("x", [2, 8, 6, 6])
    weight = b.const(sparse((16, 8, 3, 3), 1) / 500, "conv.w")
    y = b.relu(b.op("Conv", [x, weight, b.const(np.full(16, 1e-2, np.float32))], pads=[1] * 4))
    b.output(b.op("Conv", [y, b.const(sparse((8, 16, 1, 1), 1), "next.w")]))
    model = ShapeInferencePass()(b.model()).model
    small = [{"x": feeds["x"] / 100} for feeds in data()]
    half = to_half(prepared(model, planned(model), small, INT8)).model
    found = compare(model, half, small, threads=1, precision="int8")
    assert found.passed and found.l2_rel is not None and 0 < found.l2_rel < 0.02
    assert found.bounds == "l2_rel" and found.tolerance == BOUNDS["int8"].tolerance


@pytest.mark.parametrize("wrong", [2.0, np.nan])
def test_a_wrong_scale_is_seen(wrong: float) -> None:
    model = network()
    made = prepared(model, planned(model), data(), INT8)
    scale = next(value for value in made.graph.initializers.values() if value.name == "gemm.w.scale")
    assert scale.const_value is not None
    scale.const_value = ir.Tensor(scale.const_value.numpy() * np.float32(wrong), name="gemm.w.scale")
    with pytest.raises(GateError, match=r"PC524.*of its norm"):
        compare(model, made, data(), threads=1, precision="int8")


@pytest.mark.parametrize(("last", "bounds"), [("Softmax", "l2_rel"), ("Sigmoid", "l2_rel"), ("Relu", "max_rel")])
def test_behind_a_softmax_the_norm_is_bounded(last: str, bounds: str) -> None:
    """There FP16 tips what was undecided, and the largest error says how undecided it was."""
    b = Builder(0)
    logits = b.op("MatMul", [b.input("x", [4, 64]), b.const(sparse((64, 32), 0), "w")])
    b.output(b.reshape(b.op(last, [logits]), [2, 2, 32]))
    model = ShapeInferencePass()(b.model()).model
    feeds = [{"x": np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)}]
    found = compare(model, to_half(model).model, feeds, threads=1)
    assert found.bounds == bounds and 0 < found.error <= found.tolerance == BOUNDS["fp16"].tolerance
    wrong = to_half(model).model
    weight = next(value for value in wrong.graph.initializers.values() if value.name == "w.fp16")
    assert weight.const_value is not None
    weight.const_value = ir.Tensor(weight.const_value.numpy() * np.float16(1.2), name="w.fp16")
    with pytest.raises(GateError, match="PC524"):
        compare(model, wrong, feeds, threads=1)


def test_an_opset_that_cannot_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no adapter")

    monkeypatch.setattr(onnx.version_converter, "convert_version", refuse)
    with pytest.raises(PrunecError, match="PC443"):
        with_half_scales(network())


@pytest.mark.parametrize(
    ("options", "code"),
    [({"precision": "fp8"}, "PC445"), ({"precision": "fp32"}, "PC445"), ({"products": "x"}, "PC444")],
)
def test_options_that_there_are_not(options: dict[str, str], code: str) -> None:
    with pytest.raises(PrunecError, match=code):
        check_lowering_options(BuildOptions(builds=False, **options))  # type: ignore[arg-type]


def both_forms() -> ir.Model:
    b = Builder(0)
    x = b.input("x", [3, 16])
    y = b.op("Gemm", [x, b.const(sparse((8, 16), 1)), b.weight(8)], transB=1, alpha=-0.5, beta=2.0)
    y = b.relu(b.op("Gemm", [y, b.const(sparse((8, 12), 0))]))
    b.output(b.linear(y, 4))
    return ShapeInferencePass()(b.model()).model


@pytest.mark.parametrize(("form", "there", "gone"), [("matmul", "MatMul", "Gemm"), ("gemm", "Gemm", "MatMul")])
def test_products_in_either_form_compute_the_same(form: str, there: str, gone: str) -> None:
    model = both_forms()
    made = with_products(model, form)
    kinds = [node.op_type for node in made.graph]
    assert there in kinds and gone not in kinds
    feeds = {"x": np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)}
    assert worst_relative(run(make_session(model), feeds), run(make_session(made), feeds)) < 1e-6
    weights = judge(made)
    assert {verdict.node for verdict in weights} == {verdict.node for verdict in judge(model)}
    assert [verdict.is_sparse for verdict in weights] == [True, True, False]
    assert with_products(model, None) is model
