"""A placement with its grids as QuantizeLinear and DequantizeLinear.

x → QuantizeLinear(s_x, z_x) → DequantizeLinear ─┐
             W int8 → DequantizeLinear(s_w, 0) ──┼→ Conv, Gemm or MatMul → … → QuantizeLinear …
        b int32 → DequantizeLinear(s_x · s_w, 0) ┘
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from prunec.graph.shapes import constant
from prunec.passes.compensate.layers import ConvLayer, GemmLayer, Layer
from prunec.passes.quantise.nodes import add_constant, add_pair
from prunec.passes.quantise.placement import Placement
from prunec.passes.quantise.ranges import Grid
from prunec.passes.quantise.weights import quantised_weight

Steps = Mapping[str, Sequence[float]]
"""Scales of the weights [outputs] of layers whose weights are multiples of them, by node name."""


def write(
    model: ir.Model, placement: Placement, grids: Mapping[str, Grid], bits: int = 8, steps: Steps | None = None
) -> ir.Model:
    """A copy of `model` with the quantisers of `placement`.

    `grids` by value name, those of shared ones too; weights of so many `bits`.
    """
    copy = with_activations(model, placement, grids)
    nodes = {str(node.name): node for node in copy.graph}
    for name, layer in placement.layers.items():
        known = (steps or {}).get(name)
        own = None if known is None else np.array(known)
        _write_layer(copy.graph, nodes[name], weight_axis(layer), grids[str(layer.data.name)].scale, bits, own)
    return copy


def with_activations(model: ir.Model, placement: Placement, grids: Mapping[str, Grid]) -> ir.Model:
    """A copy of `model` with quantisers of its activations alone."""
    copy = model.clone()
    values = {str(value.name): value for value in copy.graph.inputs}
    values |= {str(value.name): value for node in copy.graph for value in node.outputs}
    nodes = {str(node.name): node for node in copy.graph}
    for name, readers in placement.readers.items():
        grid = grids[name]
        pair = add_pair(copy.graph, values[name], grid.scale, np.array(grid.zero, np.uint8))
        for node in (nodes[reader] for reader in readers):
            for index, value in enumerate(node.inputs):
                if value is values[name]:
                    node.replace_input_with(index, pair)
    return copy


def weight_axis(layer: Layer) -> int:
    """Of the output channels in the stored weight."""
    if isinstance(layer, ConvLayer):
        return 0
    if isinstance(layer, GemmLayer):
        return 0 if layer.node.attributes.get_int("transB", 0) else 1
    return 1


def _write_layer(graph: ir.Graph, node: ir.Node, axis: int, step: float, bits: int, steps: np.ndarray | None) -> None:
    weight = constant(node.inputs[1])
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 and node.op_type != "MatMul" else None
    assert weight is not None
    integers, scales = quantised_weight(weight, axis, bias, step, bits, steps)
    _replace(graph, node, 1, integers, scales, axis)
    if bias is not None:
        steps = (np.float32(step) * scales).astype(np.float32)
        whole = np.rint(np.broadcast_to(bias, steps.shape).astype(np.float64) / steps.astype(np.float64))
        _replace(graph, node, 2, np.clip(whole, -(2**31), 2**31 - 1).astype(np.int32), steps, 0)


def _replace(graph: ir.Graph, node: ir.Node, index: int, integers: np.ndarray, scales: np.ndarray, axis: int) -> None:
    old = node.inputs[index]
    assert old is not None
    base = f"{node.name}.{'weight' if index == 1 else 'bias'}"
    inputs = [
        add_constant(graph, f"{base}.{integers.dtype}", integers),
        add_constant(graph, f"{base}.scale", scales),
        add_constant(graph, f"{base}.zero", np.zeros(scales.shape, integers.dtype)),
    ]
    made = ir.node("DequantizeLinear", inputs, attributes={"axis": axis}, name=f"{base}.dequantise")
    made.outputs[0].name = f"{base}.dequantised"
    made.outputs[0].type, made.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(integers.shape)
    graph.insert_before(node, made)
    node.replace_input_with(index, made.outputs[0])
    if not old.uses() and not old.is_graph_output() and (old.name or "") in graph.initializers:
        del graph.initializers[old.name or ""]
