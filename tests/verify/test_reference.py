"""The float64 reference answers what ONNX's own evaluator answers on the whole model, and keeps nothing too long."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from prunec.verify.float64 import with_floats
from prunec.verify.reference import NotEvaluable, evaluate_float64

OPSETS = [helper.make_opsetid("", 20)]


def whole(model: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """All nodes at once, without anything of ours but the types."""
    evaluator = ReferenceEvaluator(ir.to_proto(with_floats(model, ir.DataType.DOUBLE)))
    return evaluator.run(None, {name: array.astype(np.float64) for name, array in feeds.items()})


def conv(shape: list[int], weight: list[int], **attributes: object) -> ir.Model:
    rng = np.random.default_rng(0)
    constants = [
        numpy_helper.from_array(rng.standard_normal(weight, np.float32), "w"),
        numpy_helper.from_array(rng.standard_normal(weight[0], np.float32), "b"),
    ]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"], **attributes)],
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=OPSETS))


PADS = ({}, {"pads": [1, 2, 0, 3]}, {"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}, {"auto_pad": "VALID"})


@pytest.mark.parametrize(
    ("group", "strides", "dilations", "pads"),
    list(itertools.product([1, 2, 6], [None, [2, 1], [3, 2]], [None, [2, 3]], PADS)),
)
def test_convolutions_in_two_dimensions(
    group: int, strides: list[int] | None, dilations: list[int] | None, pads: dict[str, object]
) -> None:
    extra = {"strides": strides, "dilations": dilations, **pads}
    model = conv([2, 6, 13, 11], [12, 6 // group, 3, 2], group=group, **{k: v for k, v in extra.items() if v})
    check(model, [2, 6, 13, 11])


@pytest.mark.parametrize(
    ("shape", "weight", "attributes"),
    [
        ([2, 3, 17], [5, 3, 4], {"strides": [2], "pads": [2, 1]}),
        ([1, 2, 5, 6, 7], [4, 2, 2, 3, 2], {"pads": [1, 0, 1, 0, 2, 0]}),
        ([1, 64, 40, 300], [3, 64, 5, 5], {"pads": [2, 2, 2, 2]}),  # in several parts
    ],
)
def test_convolutions_of_other_ranks_and_in_parts(
    shape: list[int], weight: list[int], attributes: dict[str, object]
) -> None:
    check(conv(shape, weight, **attributes), shape)


def check(model: ir.Model, shape: list[int]) -> None:
    feeds = {"x": np.random.default_rng(1).standard_normal(shape, np.float32)}
    (expected,), (found,) = whole(model, feeds), evaluate_float64(model, feeds)
    assert found.dtype == np.float64 and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * np.abs(expected).max())


def test_what_an_inner_graph_captures_is_there_when_it_runs() -> None:
    branches = [
        helper.make_graph([helper.make_node(op, ["h", "c"], ["r"])], op, [], [helper.make_empty_tensor_value_info("r")])
        for op in ("Add", "Sub")
    ]
    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]
    constants = [
        numpy_helper.from_array(np.array([1.5, 2.5, 3.5], np.float32), "c"),
        numpy_helper.from_array(np.zeros((), np.float32), "zero"),
    ]
    graph = helper.make_graph(
        nodes,
        "inner",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "c")],
        constants,
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=OPSETS))
    for sign in (1, -1):
        feeds = {"x": sign * np.array([1, 2, -0.5], np.float32)}
        for found, expected in zip(evaluate_float64(model, feeds), whole(model, feeds), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_values_behind_their_last_reader_are_gone() -> None:
    length, depth = 1 << 18, 24
    names = [f"h{i}" for i in range(depth + 1)]
    nodes = [helper.make_node("Relu", [a], [b]) for a, b in itertools.pairwise(names)]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, [length])],
        [helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, [length])],
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=OPSETS))
    feeds = {names[0]: np.ones(length, np.float32)}
    evaluate_float64(model, feeds)  # imports
    tracemalloc.start()
    evaluate_float64(model, feeds)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 * 8 * length


def test_an_operator_that_the_reference_lacks_is_named() -> None:
    node = helper.make_node("FusedGelu", ["x"], ["y"], domain="com.example")
    graph = helper.make_graph(
        [node],
        "custom",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    opsets = [*OPSETS, onnx.helper.make_opsetid("com.example", 1)]
    with pytest.raises(NotEvaluable, match="FusedGelu"):
        evaluate_float64(ir.from_proto(helper.make_model(graph, opset_imports=opsets)), {"x": np.ones(2, np.float32)})


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 5, 4), (1, 2, 3, 4, 5)])
def test_global_maxima_of_any_rank(shape: tuple[int, ...]) -> None:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph([helper.make_node("GlobalMaxPool", ["x"], ["y"])], "pool", inputs, outputs)
    model = ir.from_proto(helper.make_model(graph, opset_imports=OPSETS))
    x = np.random.default_rng(0).standard_normal(shape)
    (found,) = evaluate_float64(model, {"x": x})
    assert found.shape == (*shape[:2], *[1] * (len(shape) - 2))
    assert np.array_equal(found, x.max(axis=tuple(range(2, x.ndim)), keepdims=True))
