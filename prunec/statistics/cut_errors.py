"""What a model's outputs lose to cuts after which only the next layers are refitted (`output_errors`).

Channels that go are masked, so that any of them can be asked about; the consumers get the least-squares weights and
biases that the caller has worked out. One session and one forward pass a question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunec.graph import Analysis
from prunec.passes.compensate.find import find_layers
from prunec.passes.compensate.layers import Layer, NormLayer
from prunec.passes.mask_channels import mask_channels
from prunec.statistics.collect import CalibrationData
from prunec.statistics.output_errors import OutputErrors


@dataclass(frozen=True)
class Refit:
    """Of part `part` (a group of a convolution, else 0) of layer `node`: x_J ≈ E[x_J] − (x − E[x]) V without J.

    removed: int64 [r], positions J within the part; transfer: V float64 [n, r], ones at J; mean: E[x] float64 [n]
    """

    node: str
    part: int
    removed: np.ndarray
    transfer: np.ndarray
    mean: np.ndarray


class CutErrors(OutputErrors):
    """Asks one canonical model about cuts of its channels."""

    def __init__(
        self,
        model: ir.Model,
        analysis: Analysis,
        calibration: CalibrationData,
        samples: int,
        *,
        threads: int = 1,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> None:
        super().__init__(model, calibration, samples, threads=threads, progress=progress)
        self._analysis = analysis

    def error(self, alive: np.ndarray, refits: Sequence[Refit]) -> float:
        """Of the model with only the classes `alive` (bool per class id)."""
        masked = mask_channels(self._model, self._analysis, alive)
        layers = {layer.name: layer for layer in find_layers(masked)[0] if isinstance(layer, Layer)}
        for name in dict.fromkeys(refit.node for refit in refits):
            layer = layers.get(name)
            if layer is not None and not isinstance(layer, NormLayer):
                _write(masked.graph, layer, [refit for refit in refits if refit.node == name])
        return self.of(masked)


def _write(graph: ir.Graph, layer: Layer, refits: Sequence[Refit]) -> None:
    matrix, bias = layer.matrix().copy(), layer.bias().copy()
    outputs = matrix.shape[1]
    for refit in refits:
        totals = np.zeros((outputs, len(refit.removed)))
        rows = slice(refit.part * outputs, (refit.part + 1) * outputs)
        for position in range(matrix.shape[2]):  # one at a time: all of them in float64 are twice the weight
            lost = matrix[refit.part, :, position][:, refit.removed]
            totals += lost
            matrix[refit.part, :, position] -= lost @ refit.transfer.T
        if layer.can_shift:
            bias[rows] += totals @ (refit.transfer.T @ refit.mean)
    layer.write(graph, matrix, bias)
