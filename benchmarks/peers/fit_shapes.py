"""A graph whose weights were cut by a tool that knows modules only: what else in it says how wide things are."""

from __future__ import annotations

import onnx
from onnx import helper, numpy_helper


def fit_shapes(model: onnx.ModelProto) -> None:
    """In place: groups of depthwise convolutions, the constant shape before a classifier; inferred shapes go."""
    sizes = {weight.name: list(weight.dims) for weight in model.graph.initializer}
    makers = {output: node for node in model.graph.node for output in node.output}
    del model.graph.value_info[:]
    for node in model.graph.node:
        if node.op_type == "Conv":
            for attribute in node.attribute:
                if attribute.name == "group" and attribute.i > 1 and sizes[node.input[1]][1] == 1:
                    attribute.CopyFrom(helper.make_attribute("group", sizes[node.input[1]][0]))
        reshape = makers.get(node.input[0]) if node.op_type == "Gemm" else None
        if reshape is not None and reshape.op_type == "Reshape":
            _widen(model, reshape.input[1], sizes[node.input[1]][1])


def _widen(model: onnx.ModelProto, name: str, width: int) -> None:
    """[−1, what it was] → [−1, width]."""
    for shape in model.graph.initializer:
        if shape.name == name:
            values = numpy_helper.to_array(shape).copy()
            values[-1] = width
            shape.CopyFrom(numpy_helper.from_array(values, name))
