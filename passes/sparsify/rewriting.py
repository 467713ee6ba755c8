"""Weights of a layer of any kind, replaced matrix by matrix (`views.matrices`); its bias stays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from prunec.passes.compensate.layers import Layer
from prunec.passes.compensate.recurrent import write_weights
from prunec.passes.compensate.recurrent_layer import CellWeights, RecurrentLayer

Weighted = Layer | RecurrentLayer
"""Layers that kernels compute: no tables of embeddings."""


def rewrite(graph: ir.Graph, layer: Weighted, found: Sequence[np.ndarray]) -> None:
    """Write `found`, one array like each of `matrices(layer)`, into the node."""
    if not isinstance(layer, RecurrentLayer):
        layer.write(graph, np.stack(found).reshape(layer.matrix().shape), layer.bias())
        return
    write_weights(graph, layer, with_matrices(layer, found))


def with_matrices(layer: RecurrentLayer, found: Sequence[np.ndarray]) -> CellWeights:
    """The weights of a recurrent layer with those matrices, its biases as they are."""
    weights, left = layer.weights(), iter(found)
    for part in layer.parts:
        matrix = np.stack([next(left) for _ in weights.matrix(part)]).astype(np.float64, copy=False)
        weights = weights.with_part(part, matrix, weights.bias(part))
    return weights
