"""Shapes computed at run time → constants, wherever the graph decides them.

A target shape that is known but for its dynamic axes is written down: afterwards no shape computation depends on a
static dimension (so cutting channels never meets one), and most shape computations are gone.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunec.passes.canonicalise.facts import Facts
from prunec.passes.canonicalise.split_vectors import split_vectors
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
    4. A partly known vector read by anything else → Concat of constants and single reads of Shape (split_vectors.py).
    """
    count = 0
    for node in nodes_of(model):
        if is_op(node, "Reshape"):
            count += _set_input(node, 1, _reshape_target(node, facts))
        elif is_op(node, "Expand"):
            count += _set_input(node, 1, _expand_target(node, facts))
        elif is_op(node, "Resize"):
            count += _resize(node, facts)
    return count + split_vectors(model, facts)


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
