"""The FP16 graph: types on both sides of every operator, islands, casts where values cross, numbers."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes.common import ShapeInferencePass

from prunec.backends.onnx.session import make_session, run
from prunec.backends.tensorrt.half import half_array, to_half
from prunec.backends.tensorrt.ranges import float_values, largest, too_large
from prunec.diagnostics import PrunecError
from prunec.passes.canonicalise import canonicalise
from prunec.verify.metrics import worst_relative
from tests.graph.builder import Builder

FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16


def block() -> ir.Model:
    """A convolution, a norm, attention scores with a softmax, and a mean."""
    b = Builder(0)
    x = b.input("x", [2, 4, 6, 6])
    y = b.reshape(b.relu(b.conv(x, 8)), [2, 8, 36])
    y = b.op("LayerNormalization", [y, b.weight(36), b.weight(36)])
    scores = b.op("Softmax", [b.op("MatMul", [y, b.op("Transpose", [y], perm=[0, 2, 1])])])
    b.output(b.op("ReduceMean", [b.op("MatMul", [scores, y])], keepdims=0), b.op("Relu", [scores]))
    return b.model()


def dtypes(model: ir.Model) -> dict[str, tuple[set[str], set[str]]]:
    """Operator → names of the types of its inputs and outputs."""
    found: dict[str, tuple[set[str], set[str]]] = {}
    for node in model.graph:
        entry = found.setdefault(node.op_type, (set(), set()))
        entry[0].update(v.dtype.name for v in node.inputs if v is not None and v.dtype in (FLOAT, HALF))
        entry[1].update(v.dtype.name for v in node.outputs if v.dtype in (FLOAT, HALF))
    return found


def feeds_of(model: ir.Model, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {str(v.name): rng.standard_normal([int(d) for d in v.shape or ()]).astype(np.float32)
            for v in model.graph.inputs}  # fmt: skip


def test_every_operator_has_one_type_on_its_inputs_and_islands_are_fp32() -> None:
    half = to_half(canonicalise(block()))
    onnx.checker.check_model(ir.to_proto(half.model), full_check=True)
    found = dtypes(half.model)
    for op in ("Conv", "Relu", "MatMul", "Transpose"):
        assert found[op] == ({"FLOAT16"}, {"FLOAT16"}), op
    for op in ("LayerNormalization", "Softmax", "ReduceMean"):
        assert found[op] == ({"FLOAT"}, {"FLOAT"}), op
    assert set(half.islands.values()) == {"norm", "exponential", "reduction"}
    assert [value.dtype for value in (*half.model.graph.inputs, *half.model.graph.outputs)] == [FLOAT] * 3


def test_names_of_inputs_outputs_and_nodes_stay() -> None:
    before = canonicalise(block())
    after = to_half(before).model
    for part in ("inputs", "outputs"):
        assert [v.name for v in getattr(after.graph, part)] == [v.name for v in getattr(before.graph, part)]
    assert {node.name for node in before.graph} <= {node.name for node in after.graph}


def test_a_value_is_cast_once_for_each_type() -> None:
    b = Builder(0)
    x = b.input("x", [2, 8])
    y = b.op("Softmax", [x])
    b.output(b.relu(y), b.op("Tanh", [y]), b.op("Sigmoid", [x]))
    casts = [node for node in to_half(b.model()).model.graph if node.op_type == "Cast"]
    assert len(casts) == 5  # x and softmax down, three outputs up


def test_numbers_are_those_of_the_model_and_the_model_stays() -> None:
    model = canonicalise(block())
    before = ir.to_proto(model).SerializeToString()
    feeds = feeds_of(model)
    half = to_half(model).model
    error = worst_relative(run(make_session(model), feeds), run(make_session(half), feeds))
    assert 0 < error < 5e-3
    assert ir.to_proto(model).SerializeToString() == before


def test_zeros_become_plus_zero() -> None:
    array = half_array(np.array([-0.0, -1e-9, 1e-9, 1.0], np.float32))
    assert array.dtype == np.float16 and not np.signbit(array).any() and (array == 0).sum() == 3


@pytest.mark.parametrize("constant", [1e6, np.finfo(np.float32).min])
def test_constants_that_fp16_cannot_hold_keep_their_operator(constant: float) -> None:
    b = Builder(0)
    x = b.input("x", [2, 8])
    b.output(b.op("Add", [b.relu(x), b.const(np.array([constant], np.float32))]))
    half = to_half(b.model())
    (reason,) = half.islands.values()
    assert reason == "a constant is too large for FP16"
    assert not any(v.dtype == HALF and np.isinf(v.const_value.numpy()).any()  # type: ignore[union-attr]
                   for v in half.model.graph.initializers.values())  # fmt: skip


def test_a_value_without_a_type_is_refused() -> None:
    b = Builder(0)
    x = b.input("x", [2, 8])
    b.output(b.relu(b.contrib("Gelu", [x])))
    with pytest.raises(PrunecError, match="PC446"):
        to_half(b.model())


def test_scales_of_a_resize_stay_fp32() -> None:
    b = Builder(0)
    x = b.input("x", [1, 3, 4, 4])
    b.output(b.op("Resize", [b.relu(x), "", b.const(np.array([1, 1, 2, 2], np.float32))], mode="nearest"))
    half = to_half(b.model()).model
    resize = next(node for node in half.graph if node.op_type == "Resize")
    assert [None if v is None else v.dtype for v in resize.inputs] == [HALF, None, FLOAT]
    run(make_session(half), feeds_of(half))


def test_values_that_branches_read_stay_fp32() -> None:
    branches = [
        helper.make_graph(
            [helper.make_node(op, ["inner"], ["out"])], "g", [],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, [2, 4])],
        )
        for op in ("Relu", "Tanh")
    ]  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node("Sigmoid", ["x"], ["inner"], name="s"),
         helper.make_node("If", ["c"], ["y"], name="if", then_branch=branches[0], else_branch=branches[1]),
         helper.make_node("Relu", ["y"], ["z"], name="last")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4]),
         helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [2, 4])],
    )  # fmt: skip
    half = to_half(ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)))
    assert half.islands == {"s": "read inside a branch", "if": "control flow"}
    session = make_session(half.model)
    found = run(session, {"x": -np.ones((2, 4), np.float32), "c": np.array(False)})["z"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.tanh(1 / (1 + np.e)), rtol=1e-3)


@pytest.mark.parametrize(("opset", "expected"), [(17, "FLOAT"), (19, "FLOAT16")])
def test_quantised_layers_follow_what_the_opset_has(opset: int, expected: str) -> None:
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.integers(-127, 127, (8, 4)).astype(np.int8), "w")
    scale = numpy_helper.from_array(np.array(0.01, np.float32), "s")
    zero = numpy_helper.from_array(np.array(0, np.int8), "z")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="d"),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"], name="wd"),
        helper.make_node("MatMul", ["d", "wd"], ["y"], name="m"),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])], [weight, scale, zero],
    )  # fmt: skip
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9))
    half = to_half(model).model
    assert dtypes(half)["MatMul"] == ({expected}, {expected})
    assert half.graph.initializers["w"].dtype == ir.DataType.INT8
    run(make_session(half), feeds_of(half))


def test_values_near_the_largest_are_found_and_their_nodes_kept() -> None:
    b = Builder(0)
    x = b.input("x", [2, 8])
    big = b.op("Mul", [x, b.const(np.array([40000.0], np.float32), "factor")])
    b.output(b.op("Mul", [b.relu(big), b.const(np.array([1e-4], np.float32))]))
    model = ShapeInferencePass()(b.model()).model
    tops = largest(model, [{"x": np.ones((2, 8), np.float32)}], float_values(model))
    assert sorted(round(top) for top in tops.values()) == [4, 40000, 40000]
    keep = too_large(model, tops)
    assert len(keep) == 3 and all("came too near FP16's largest" in reason for reason in keep.values())
    half = to_half(model, keep).model
    assert not any(v.dtype == HALF for node in half.graph for v in node.outputs)
