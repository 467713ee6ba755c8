"""How much the model's outputs mind a change of one layer, from forward passes alone.

ECoFLaP (arXiv 2310.02998) weighs layers by zeroth-order estimates of the loss's gradient: differences of L(W_l + εz)
and L(W_l − εz), z ~ N(0, 1). Here L is the distance of the outputs from the dense model's, which is least at W: that
first difference is zero whatever the layer is. What is left of the same two passes is the second one,

    E_z[L(W_l + εz) + L(W_l − εz)] / 2 = ε²/2 · tr H_l + O(ε⁴)

which, over the energy ε²·Σ E[x²] that the change has in the layer's outputs, is what L rises by for a unit of that
energy. A mask that removes the energy Σ w²·E[x²] is taken to lose as many times this.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from prunec.passes.compensate.layers import Layer
from prunec.passes.sparsify.views import prunable_layers
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
    weight = _layer(model, name).matrix()
    groups, outputs, positions, channels = weight.shape
    scale = STEP * float(np.sqrt(np.mean(np.square(weight, dtype=np.float64))))
    power = np.ones((groups, positions * channels)) if inputs is None else np.stack(inputs)
    power = power.reshape(groups, 1, positions, channels)
    lost = energy = 0.0
    for _ in range(DIRECTIONS):
        change = scale * rng.standard_normal((groups, outputs, positions, channels))
        energy += float((np.square(change) * power).sum())
        lost += sum(errors.of(_changed(model, name, weight + sign * change)) for sign in (1, -1)) / 2
    return lost / energy if energy > 0 else 0.0


def _changed(model: ir.Model, name: str, weight: np.ndarray) -> ir.Model:
    other = model.clone()
    layer = _layer(other, name)
    layer.write(other.graph, weight, layer.bias())
    return other


def _layer(model: ir.Model, name: str) -> Layer:
    layer = prunable_layers(model)[name]
    assert isinstance(layer, Layer)
    return layer
