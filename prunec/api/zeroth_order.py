"""How much the model's outputs mind a change of one layer, from forward passes alone.

ECoFLaP (arXiv 2310.02998) weighs layers by zeroth-order estimates of the loss's gradient: differences of L(W_l + εz)
and L(W_l − εz), z ~ N(0, 1). Here L is the distance of the outputs from the dense model's, which is least at W: that
first difference is zero whatever the layer is. What is left of the same two passes is the second one,

    E_z[L(W_l + εz) + L(W_l − εz)] / 2 = ε²/2 · tr H_l + O(ε⁴)

which, over the energy ε²·Σ E[x²] that the change has in the layer's outputs, is what L rises by for a unit of that
energy. A mask that removes the energy Σ w²·E[x²] is taken to lose as many times this.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from prunec.passes.sparsify.embeddings import Embedding
from prunec.passes.sparsify.rewriting import Weighted, rewrite
from prunec.passes.sparsify.views import matrices, prunable_layers
from prunec.statistics.output_errors import OutputErrors

DIRECTIONS = 4
"""z that are drawn for each layer; each costs two questions."""
STEP = 0.03
"""ε, over the root mean square of the layer's weights."""
QUESTIONS = 2 * DIRECTIONS


def sensitivity(
    model: ir.Model, name: str, inputs: Sequence[np.ndarray] | None, errors: OutputErrors, rng: np.random.Generator
) -> float:
    """L over the energy of the change in the outputs of layer `name`, the mean over `DIRECTIONS` changes.

    `inputs`: E[x²] of the columns of each of the layer's matrices, all 1 where it is None. 0 where all weights are 0.
    """
    own = [matrix for matrix, _ in matrices(_layer(model, name))]
    squares = sum(float(np.square(matrix, dtype=np.float64).sum()) for matrix in own)
    scale = STEP * math.sqrt(squares / max(sum(matrix.size for matrix in own), 1))
    power = [np.ones(matrix.shape[1]) for matrix in own] if inputs is None else inputs
    lost = energy = 0.0
    for _ in range(DIRECTIONS):
        change = [scale * rng.standard_normal(matrix.shape) for matrix in own]
        energy += sum(float((np.square(one) * column).sum()) for one, column in zip(change, power, strict=True))
        for sign in (1, -1):
            moved = [matrix + sign * one for matrix, one in zip(own, change, strict=True)]
            lost += errors.of(_changed(model, name, moved)) / 2
    return lost / energy if energy > 0 else 0.0


def _changed(model: ir.Model, name: str, weights: Sequence[np.ndarray]) -> ir.Model:
    other = model.clone()
    rewrite(other.graph, _layer(other, name), weights)
    return other


def _layer(model: ir.Model, name: str) -> Weighted:
    layer = prunable_layers(model)[name]
    assert not isinstance(layer, Embedding)
    return layer
