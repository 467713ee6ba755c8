"""The graph as the rules want it: static shapes, folded pads, batch norms as products and sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common

from prunec.diagnostics import PrunecError
from prunec.graph.shapes import constant, dims, is_constant
from prunec.passes.canonicalise import canonicalise


def prepare(model: ir.Model, shapes: Mapping[str, Sequence[int]] | None = None) -> ir.Model:
    """A copy with static shapes everywhere: those of `shapes` for inputs that are named there, else 1 for a batch.

    Raises:
        PrunecError PC452: an input has an axis of unknown length that is not the batch.
    """
    copy = model.clone()
    for value in copy.graph.inputs:
        if is_constant(value) or value.name in copy.graph.initializers:
            continue
        value.shape = ir.Shape(_static(value, shapes or {}))
    for node in copy.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
    for value in copy.graph.outputs:
        if value.producer() is not None:
            value.shape = None
    copy = canonicalise(copy)
    _spell_out_batch_norms(copy)
    _fold_pads(copy)
    common.RemoveUnusedNodesPass()(copy)
    return copy


def _static(value: ir.Value, shapes: Mapping[str, Sequence[int]]) -> list[int]:
    known = dims(value)
    given = shapes.get(value.name or "")
    if given is not None:
        return [int(n) for n in given]
    if known is None or any(not isinstance(n, int) for n in known[1:]):
        example = f"{value.name}=1,{','.join(str(n) if isinstance(n, int) else 'N' for n in (known or ())[1:])}"
        raise PrunecError(
            "PC452",
            f"generated code has fixed shapes, and {value.name} has an axis of unknown length",
            where=value.name,
            hint=f"make it static with --input-shape {example}",
        )
    return [n if isinstance(n, int) else 1 for n in known]


def _spell_out_batch_norms(model: ir.Model) -> None:
    """y = x · a + b per channel, which the kernel before it computes in passing."""
    for node in list(model.graph):
        if node.op_type != "BatchNormalization" or len(node.outputs) > 1:
            continue
        found = [constant(value) for value in node.inputs[1:]]
        rank = len(dims(node.inputs[0]) or ())
        if any(array is None for array in found) or rank < 2:
            continue
        scale, shift, mean, variance = (array.astype(np.float64) for array in found if array is not None)
        factor = scale / np.sqrt(variance + (node.attributes.get_float("epsilon", 1e-5) or 0.0))
        shape = (-1, *[1] * (rank - 2))
        name = node.outputs[0].name or ""
        product = _constant(model, f"{name}_factor", factor.reshape(shape))
        added = _constant(model, f"{name}_shift", (shift - mean * factor).reshape(shape))
        multiply = ir.node("Mul", [node.inputs[0], product], name=f"{node.name}_factor")
        multiply.outputs[0].name = f"{name}_scaled"
        multiply.outputs[0].shape, multiply.outputs[0].type = node.outputs[0].shape, node.outputs[0].type
        add = ir.node("Add", [multiply.outputs[0], added], name=f"{node.name}_shift")
        _replace(node, [multiply, add])


def _replace(node: ir.Node, new: list[ir.Node]) -> None:
    """`new` in the place of `node`, the last of them with its output's name, shape and type."""
    old, output = node.outputs[0], new[-1].outputs[0]
    output.shape, output.type = old.shape, old.type
    ir.convenience.replace_nodes_and_values(node.graph, node, [node], new, [old], [output])  # type: ignore[arg-type]


def _constant(model: ir.Model, name: str, data: np.ndarray) -> ir.Value:
    tensor = ir.Tensor(data.astype(np.float32), name=name)
    value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(ir.DataType.FLOAT), const_value=tensor)
    model.graph.register_initializer(value)
    return value


def _fold_pads(model: ir.Model) -> None:
    """Pad with zeros before a convolution → pads of the convolution."""
    for node in list(model.graph):
        source = node.inputs[0] if node.inputs else None
        before = source.producer() if source is not None else None
        if node.op_type != "Conv" or before is None or before.op_type != "Pad":
            continue
        amounts = constant(before.inputs[1])
        value = constant(before.inputs[2]) if len(before.inputs) > 2 and before.inputs[2] is not None else np.zeros(1)
        has_axes = len(before.inputs) > 3 and before.inputs[3] is not None
        auto = node.attributes.get_string("auto_pad", "NOTSET")
        if amounts is None or value is None or np.any(value != 0) or has_axes or auto != "NOTSET":
            continue
        if before.attributes.get_string("mode", "constant") != "constant" or np.any(amounts < 0):
            continue
        rank = len(amounts) // 2
        if any(amounts[[0, 1, rank, rank + 1]]):
            continue
        own = np.array(node.attributes.get_ints("pads") or [0] * 2 * (rank - 2))
        added = np.concatenate([amounts[2:rank], amounts[rank + 2 :]])
        node.attributes["pads"] = ir.AttrInt64s("pads", [int(n) for n in own + added])
        node.replace_input_with(0, before.inputs[0])
