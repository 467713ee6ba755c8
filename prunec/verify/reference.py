"""Evaluate a model in float64, node by node, in ONNX's own reference implementation.

A node's weights become float64 when it runs and are gone afterwards, and a value is gone behind its last reader: the
memory is that of the widest node, not of the model. Convolutions, which the reference computes from a copy of all
patches at once, are computed from some of them at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

from prunec.graph.reads import reads
from prunec.verify.float64 import with_floats

Values = dict[str, Any]
"""Arrays by name; sequences and optional values are what the reference makes of them."""

_REFUSALS = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError),
    *(LookupError, RuntimeError, TypeError, ValueError),
)


class NotEvaluable(Exception):
    """The reference cannot run this model; the message says why."""


def evaluate_float64(model: ir.Model, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Outputs of `model`, in their order, in float64 by ONNX's reference implementation.

    Raises:
        NotEvaluable: an operator is missing there or refuses float64.
    """
    inputs = {name: array.astype(np.float64) if array.dtype.kind == "f" else array for name, array in feeds.items()}
    try:
        with np.errstate(all="ignore"):
            return _run(with_floats(model, ir.DataType.DOUBLE), inputs)
    except _REFUSALS as reason:
        first = str(reason).strip().splitlines()
        raise NotEvaluable(first[0][:200] if first else type(reason).__name__) from reason


def _run(model: ir.Model, values: Values) -> list[np.ndarray]:
    opsets = dict(model.graph.opset_imports)
    functions = [ir.serde.serialize_function(function) for function in model.functions.values()]
    last_reader = {value: node for node in model.graph for value in reads(node)}
    kept = set(model.graph.outputs)
    for node in model.graph:
        read = reads(node)
        given = {value.name or "": _value(value, values) for value in read}
        made = _run_node(ir.serde.serialize_node(node), given, opsets, functions)
        for value in read:
            if last_reader[value] is node and value not in kept:
                values.pop(value.name or "", None)
        values.update(
            (v.name or "", found) for v, found in zip(node.outputs, made, strict=False) if v in last_reader or v in kept
        )
    return [np.asarray(_value(value, values)) for value in model.graph.outputs]


def _value(value: ir.Value, values: Values) -> Any:
    found = values.get(value.name or "")
    return value.const_value.numpy() if found is None and value.const_value is not None else found


def _run_node(
    node: onnx.NodeProto, given: Values, opsets: dict[str, int], functions: Sequence[onnx.FunctionProto]
) -> list[Any]:
    from onnx.reference import ReferenceEvaluator

    from prunec.verify.reference_conv import Conv
    from prunec.verify.reference_pool import GlobalMaxPool

    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in given.items()
        if isinstance(array, np.ndarray) and array.dtype != object
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    graph = helper.make_graph([node], "node", inputs, outputs)
    evaluator = ReferenceEvaluator(graph, opsets=opsets, functions=[*functions], new_ops=[Conv, GlobalMaxPool])
    found = evaluator.run(None, given)
    assert isinstance(found, list)
    return found
