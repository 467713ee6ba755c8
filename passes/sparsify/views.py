"""Layers of every kind as what patterns are about: matrices [outputs, columns], their layout, and whether one fits.

A recurrent layer has one matrix per direction and sum of its gates (`recurrent_layer.Part`): a row per gate and hidden
unit, the columns of W and R side by side. A pattern holds along the inputs in W and along the states in R: both have to
fit.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunec.graph.shapes import constant
from prunec.passes.compensate.find import find_layers
from prunec.passes.compensate.layers import Layer, Matrix, NormLayer
from prunec.passes.compensate.recurrent_layer import R, RecurrentLayer, W
from prunec.passes.sparsify.embeddings import Embedding, embeddings
from prunec.patterns import Layout, Pattern

MATRIX_UP_TO = 4608
"""Unknowns of an output whose H is formed: 162 MiB in float64."""
MOMENT_ELEMENTS = 1 << 27
"""Of all H of a layer's groups together, 1 GiB in float64."""
Prunable = Layer | RecurrentLayer | Embedding


def prunable_layers(model: ir.Model) -> dict[str, Prunable]:
    """By node name: everything with weights but norms, and embedding tables."""
    layers = [layer for layer in find_layers(model)[0] if not isinstance(layer, NormLayer)]
    return {**{layer.name: layer for layer in layers}, **embeddings(model)}


def matrices(layer: Prunable) -> list[tuple[Matrix, Layout]]:
    """One per group, or per direction and sum."""
    if isinstance(layer, Embedding):
        table = layer.table()
        return [(table, Layout(1, table.shape[1]))]
    if isinstance(layer, RecurrentLayer):
        weights = layer.weights()
        found = [matrix for part in layer.parts for matrix in weights.matrix(part)]
        return [(matrix, Layout(1, matrix.shape[1])) for matrix in found]
    whole = layer.matrix()
    groups, outputs, positions, channels = whole.shape
    flat = whole.reshape(groups, outputs, positions * channels)
    return [(matrix, Layout(positions, channels)) for matrix in flat]


def constants(layer: Prunable) -> list[np.ndarray]:
    """The raw weights, as they are stored."""
    if isinstance(layer, Embedding):
        return [layer.table()]
    indices = (W, R) if isinstance(layer, RecurrentLayer) else (layer.weight_index,)
    found = [constant(layer.node.inputs[index]) for index in indices]
    return [array for array in found if array is not None]


def refusal(layer: Prunable, pattern: Pattern) -> str | None:
    """Why the layer cannot have the pattern, or None."""
    if isinstance(layer, Embedding):
        rows, width = layer.table().shape
        return "its table is shared with other nodes" if layer.is_shared else pattern.refusal(rows, Layout(1, width))
    if isinstance(layer, RecurrentLayer):
        weights = layer.weights()
        (_, _, hidden, inputs), states = weights.w.shape, weights.r.shape[3]
        for name, columns in (("W", inputs), ("R", states)):
            found = pattern.refusal(hidden, Layout(1, columns))
            if found is not None:
                return f"{name}: {found}"
        if inputs + states > MATRIX_UP_TO:
            return f"{inputs + states} inputs and states are more than can be solved"
        return None
    groups, outputs, positions, channels = layer.matrix().shape
    if groups > 1 and positions * channels > MATRIX_UP_TO:
        return f"{positions * channels} inputs in each of {groups} groups are more than can be solved"
    if groups > 1 and groups * (positions * channels) ** 2 > MOMENT_ELEMENTS:
        return f"{groups} groups of {positions * channels} inputs are more than can be solved together"
    return pattern.refusal(outputs, Layout(positions, channels))
