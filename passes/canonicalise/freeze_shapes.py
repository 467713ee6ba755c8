"""Shapes computed at run time → constants, wherever the graph decides them.

A target shape that is known but for its dynamic axes is written down: afterwards no shape computation depends on a
static dimension (so cutting channels never meets one), and most shape computations are gone.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunec.passes.canonicalise.facts import Facts
from prunec.passes.canonicalise.partial import Partial
from prunec.passes.canonicalise.symbols import Dim
from prunec.passes.canonicalise.tools import (
    add_constant,
    attribute_int,
    attribute_ints,
    constant,
    is_op,
    nodes_of,
)


def freeze_shapes(model: ir.Model, facts: Facts) -> int:
    """Apply the four rules below; returns how many nodes changed.

    1. Reshape(x, t): with output dims d known but for one → t = d with −1 there; a dynamic dim equal to the input's
       at the same position → 0 (only with allowzero=0).
    2. Expand(x, t): every dynamic dim of the output comes from x at the same position → t has 1 there.
    3. Resize(x, sizes=s): every dynamic output dim equals the input's → scales instead, if they give the same sizes.
    4. A partly known vector read by anything else → Concat of constants and single reads of Shape.
    """
    count = 0
    for node in nodes_of(model):
        if is_op(node, "Reshape"):
            count += _set_input(node, 1, _reshape_target(node, facts))
        elif is_op(node, "Expand"):
            count += _set_input(node, 1, _expand_target(node, facts))
        elif is_op(node, "Resize"):
            count += _resize(node, facts)
    for node in nodes_of(model):
        count += _split_vector(node, facts)
    return count


def _set_input(node: ir.Node, index: int, dims: list[int] | None) -> bool:
    if dims is None or constant(node.inputs[index]) is not None:
        return False
    assert isinstance(node.graph, ir.Graph)
    target = add_constant(node.graph, f"{node.outputs[0].name}_shape", np.array(dims, np.int64))
    node.replace_input_with(index, target)
    return True


def _reshape_target(node: ir.Node, facts: Facts) -> list[int] | None:
    data, shape = facts.shape(node.inputs[0]), facts.shape(node.outputs[0])
    if shape is None:
        return None
    copies = attribute_int(node, "allowzero", 0) == 0
    target: list[int] = []
    for axis, dim in enumerate(shape):
        if isinstance(dim, int):
            target.append(dim)
        elif copies and data is not None and axis < len(data) and data[axis] == dim:
            target.append(0)
        else:
            target.append(-1)
    if target.count(-1) == 0 and target.count(0) == 1 and 0 not in shape:
        target[target.index(0)] = -1
    if target.count(-1) > 1 or (0 in shape and (-1 in target or copies)):
        return None
    return target


def _expand_target(node: ir.Node, facts: Facts) -> list[int] | None:
    data, shape = facts.shape(node.inputs[0]), facts.shape(node.outputs[0])
    if data is None or shape is None or len(data) > len(shape):
        return None
    padded: list[Dim] = [*[1] * (len(shape) - len(data)), *data]
    target: list[int] = []
    for before, after in zip(padded, shape, strict=True):
        if isinstance(after, int):
            target.append(after)
        elif before == after:
            target.append(1)
        else:
            return None
    return target


def _resize(node: ir.Node, facts: Facts) -> bool:
    sizes = node.inputs[3] if len(node.inputs) > 3 else None
    data, shape = facts.shape(node.inputs[0]), facts.shape(node.outputs[0])
    if sizes is None or constant(sizes) is not None or data is None or shape is None:
        return False
    axes = attribute_ints(node, "axes") or list(range(len(data)))
    wanted = [shape[axis] for axis in axes]
    assert isinstance(node.graph, ir.Graph)
    name = node.outputs[0].name
    if all(isinstance(dim, int) for dim in wanted):
        return _set_input(node, 3, [dim for dim in wanted if isinstance(dim, int)])
    mode = node.attributes.get("coordinate_transformation_mode")
    if mode is not None and mode.as_string() == "tf_crop_and_resize":
        return False
    scales = [_scale(data[axis], shape[axis]) for axis in axes]
    if any(scale is None for scale in scales):
        return False
    node.replace_input_with(3, None)
    node.replace_input_with(2, add_constant(node.graph, f"{name}_scales", np.array(scales, np.float32)))
    node.resize_inputs(3)
    return True


def _scale(before: Dim, after: Dim) -> float | None:
    """The scale with which Resize computes `after` = floor(before · scale) and the same sampling positions."""
    if before == after:
        return 1.0
    if isinstance(before, int) and isinstance(after, int):
        scale = np.float32(after) / np.float32(before)
        return float(scale) if int(np.floor(np.float32(before) * scale)) == after else None
    return None


_READS = frozenset({"Gather", "Slice", "Shape"})


def _split_vector(node: ir.Node, facts: Facts) -> bool:
    """Rule 4, for one vector: [sym, 64, sym'] with whole-vector users → Concat(read, [64], read')."""
    output = node.outputs[0] if len(node.outputs) == 1 else None
    value = None if output is None else facts.partials.get(output)
    if output is None or value is None or value.is_scalar or value.is_known or not _is_mixed(value):
        return False
    if is_op(node, "Concat") and all(_is_piece(entry, facts) for entry in node.inputs):
        return False
    users = [use for use in output.uses() if not is_op(use.node, *_READS)]
    if not users or output.is_graph_output():
        return False
    pieces = _pieces(node, output, value)
    for use in users:
        use.node.replace_input_with(use.idx, pieces)
    return True


def _is_mixed(value: Partial) -> bool:
    return len(value.entries) > 1 and any(not isinstance(entry, str) for entry in value.entries)


def _is_piece(value: ir.Value | None, facts: Facts) -> bool:
    part = facts.partial(value)
    return part is not None and (part.is_known or not _is_mixed(part))


def _pieces(node: ir.Node, output: ir.Value, value: Partial) -> ir.Value:
    """The Concat that stands for `output`, with the nodes it needs inserted behind `node`."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    dtype = output.dtype or ir.DataType.INT64
    axis = ir.AttrInt64("axis", 0)
    parts: list[ir.Value] = []
    nodes: list[ir.Node] = []
    position = 0
    while position < len(value.entries):
        end = position + 1
        if isinstance(value.entries[position], str):
            index = add_constant(graph, f"{output.name}_index{position}", np.array([position], np.int64))
            read = ir.Node("", "Gather", [output, index], [axis], name=f"{node.name}_read{position}")
            _describe(read.outputs[0], f"{output.name}_read{position}", dtype, 1)
            nodes.append(read)
            parts.append(read.outputs[0])
        else:
            while end < len(value.entries) and not isinstance(value.entries[end], str):
                end += 1
            array = np.array(value.entries[position:end], dtype.numpy())
            parts.append(add_constant(graph, f"{output.name}_static{position}", array))
        position = end
    concat = ir.Node("", "Concat", parts, [axis], name=f"{node.name}_split")
    _describe(concat.outputs[0], f"{output.name}_split", dtype, len(value.entries))
    graph.insert_after(node, [*nodes, concat])
    return concat.outputs[0]


def _describe(value: ir.Value, name: str, dtype: ir.DataType, size: int) -> None:
    value.name, value.type, value.shape = name, ir.TensorType(dtype), ir.Shape([size])
