"""What TensorRT does not take is refused with everything that is wrong and what to do."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from prunec.backends.tensorrt.limits import check_operators, check_ranges, parse_ranges
from prunec.diagnostics import PrunecError
from tests.graph.builder import Builder


def refused(code: str, call: object, *arguments: object) -> PrunecError:
    with pytest.raises(PrunecError) as found:
        call(*arguments)  # type: ignore[operator]
    assert found.value.diagnostic.code == code
    assert found.value.diagnostic.hint
    return found.value


def dynamic() -> ir.Model:
    b = Builder()
    b.output(b.relu(b.input("x", [1, 3, 8, 8])))
    model = b.model()
    model.graph.inputs[0].shape = ir.Shape(["batch", 3, "height", 8])
    return model


def test_all_unknown_operators_are_named() -> None:
    b = Builder()
    x = b.input("x", [2, 8])
    b.output(b.op("Det", [b.contrib("Gelu", [b.op("Reshape", [x, b.const(np.array([4, 2, 2], np.int64))])])]))
    error = refused("PC434", check_operators, b.model())
    assert "Det (det" in str(error) and "com.microsoft::Gelu (gelu" in str(error)


def test_operators_inside_branches_count() -> None:
    inner = [
        helper.make_graph([helper.make_node(op, ["x"], ["o"])], "g", [],
                          [helper.make_tensor_value_info("o", TensorProto.FLOAT, [])])
        for op in ("Det", "ReduceMax")
    ]  # fmt: skip
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner[0], else_branch=inner[1])
    infos = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 2]),
             helper.make_tensor_value_info("c", TensorProto.BOOL, [])]  # fmt: skip
    graph = helper.make_graph([node], "g", infos, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])])
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    assert "Det" in str(refused("PC434", check_operators, model))


def test_an_opset_that_tensorrt_does_not_know() -> None:
    model = dynamic()
    model.graph.opset_imports[""] = 26
    assert "opsets up to 24, this model has 26" in str(refused("PC436", check_operators, model))


def test_dynamic_inputs_need_a_range_and_the_hint_spells_one() -> None:
    error = refused("PC435", check_ranges, dynamic(), {})
    hint = error.diagnostic.hint or ""
    assert "--shape-range x=1x3x32x8:8x3x64x8:32x3x128x8" in hint
    spelt = hint.split("--shape-range ")[1].split(";")[0]
    check_ranges(dynamic(), parse_ranges([spelt]))


@pytest.mark.parametrize(
    ("spelt", "said"),
    [
        ("y=1x3x8x8", "the model has no input 'y'"),
        ("x=1x4x8x8", "does not fit x, which is batchx3xheightx8"),
        ("x=1x3x8", "does not fit"),
        ("x=8x3x8x8:4x3x8x8:16x3x8x8", "does not ascend"),
    ],
)
def test_ranges_that_do_not_fit(spelt: str, said: str) -> None:
    assert said in str(refused("PC437", check_ranges, dynamic(), parse_ranges([spelt])))


@pytest.mark.parametrize("spelt", ["x", "x=", "x=1x0", "x=1xa", "=1x3", "x=1:2", "x=1:2:3:4"])
def test_ranges_that_cannot_be_read(spelt: str) -> None:
    refused("PC437", parse_ranges, [spelt])


def test_one_shape_stands_for_all_three() -> None:
    assert parse_ranges(["x=1,3", "y=1x2:2x2:4x2"]) == {"x": ((1, 3),) * 3, "y": ((1, 2), (2, 2), (4, 2))}
