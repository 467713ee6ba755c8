"""UDFC for patterns: a layer solved on the moments that the weights of the layer before it imply, without any data.

White inputs of the layer before give H of what this one reads, through a ReLU where one is between (see
`prunec.passes.solve.udfc`). Biases of the solution are corrected, and everything is judged, like any other solution.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from prunec.graph.shapes import constant, dims, is_constant
from prunec.passes.compensate.layers import ConvLayer, GemmLayer, Layer, MatMulLayer
from prunec.passes.solve import LayerProblem, Solution, Trial, solve
from prunec.passes.solve.udfc import data_free_problem
from prunec.passes.sparsify.views import prunable_layers
from prunec.patterns import Pattern


def solve_data_free(
    model: ir.Model, layer: Layer, own: list[LayerProblem], pattern: Pattern, level: float
) -> list[Solution] | str:
    """One solution per group with errors on the data of `own`, or why there is none."""
    white = _problems(model, layer, own)
    if isinstance(white, str):
        return white
    found = []
    for problem, data in zip(white, own, strict=True):
        solution = solve(problem, pattern, level, "fast")
        weight = solution.weight
        trial = Trial("udfc", solution.chosen.damping, data.fit.error(weight), data.held_out.error(weight))
        notes = ("moments from the weights of the layer before alone",)
        found.append(replace(solution, chosen=trial, trials=(trial,), notes=notes, plain_method="wanda"))
    return found


def _problems(model: ir.Model, layer: Layer, own: list[LayerProblem]) -> list[LayerProblem] | str:
    before = _producer(model, layer)
    if before is None:
        return "UDFC needs a convolution or product right before the layer, with at most a ReLU between"
    producer, bias, relu = before
    rows = producer.matrix()[0].reshape(len(bias), -1).astype(np.float64)
    layout = own[0].layout
    if len(rows) != len(own) * layout.channels:
        return f"UDFC: the layer before gives {len(rows)} channels, this one reads {len(own) * layout.channels}"
    parts = zip(own, np.split(rows, len(own)), np.split(bias, len(own)), strict=True)
    return [data_free_problem(p.weight, v, c, relu=relu, positions=layout.positions) for p, v, c in parts]


def _producer(model: ir.Model, layer: Layer) -> tuple[Layer, np.ndarray, bool] | None:
    """The layer whose output channels this one reads, its bias, and whether a ReLU is between."""
    node = layer.data.producer()
    relu = node is not None and node.op_type == "Relu"
    if node is not None and relu:
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    added: np.ndarray | None = None
    if node is not None and node.op_type == "Add":
        index = 0 if is_constant(node.inputs[0]) else 1
        added, other = constant(node.inputs[index]), node.inputs[1 - index]
        node = None if added is None or other is None else other.producer()
    found = None if node is None else prunable_layers(model).get(node.name or "")
    if not isinstance(found, ConvLayer | GemmLayer | MatMulLayer) or found.matrix().shape[0] != 1:
        return None
    rank = len(dims(layer.data) or ())
    if not rank or layer.data_axis % rank != found.out_axis % rank:
        return None
    bias = found.bias()
    if added is not None:
        if added.size not in (1, len(bias)):
            return None
        bias = bias + added.reshape(-1)
    return found, bias, relu
