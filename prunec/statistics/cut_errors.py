"""What a model's outputs lose when it is changed: by masks, by cuts after which only the next layers are refitted.

    error = mean over outputs of Σ‖y − y'‖²/Σ‖y‖²

on held-out calibration data. Channels that go are masked, so that any of them can be asked about; the consumers get the
least-squares weights and biases that the caller has worked out. One session and one forward pass a question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunec.backends.onnx.session import make_session
from prunec.diagnostics import PrunecError
from prunec.graph import Analysis
from prunec.passes.compensate.find import find_layers
from prunec.passes.compensate.layers import Layer, NormLayer
from prunec.passes.mask_channels import mask_channels
from prunec.statistics.collect import CalibrationData


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


class OutputErrors:
    """Asks about other models in the place of `model`, on `samples` of the held-out data or a few more.

    Raises PrunecError PC331 where no sample is held out.
    """

    def __init__(self, model: ir.Model, calibration: CalibrationData, samples: int, *, threads: int = 1) -> None:
        self._model, self._threads = model, threads
        self._outputs = [str(value.name) for value in model.graph.outputs]
        self._batches = list(_first(calibration, samples))
        if not self._batches:
            raise PrunecError("PC331", "there is no calibration sample to judge cuts by")
        self._dense = self._run(model)
        self._energy = np.array([sum(_square(y[i]) for y in self._dense) for i in range(len(self._outputs))])

    def of(self, other: ir.Model) -> float:
        """The error of `other`; inf where an output is not finite or has another shape."""
        sums = np.zeros(len(self._outputs))
        for wanted, found in zip(self._dense, self._run(other), strict=True):
            for i, (y, changed) in enumerate(zip(wanted, found, strict=True)):
                sums[i] += _square(y - changed) if y.shape == changed.shape else np.inf
        errors = sums / np.where(self._energy > 0, self._energy, 1.0)
        return float(errors.mean()) if np.isfinite(errors).all() else float("inf")

    def _run(self, model: ir.Model) -> list[list[np.ndarray]]:
        session = make_session(model, threads=self._threads)
        return [[np.asarray(y, np.float64) for y in session.run(self._outputs, dict(feeds))] for feeds in self._batches]


class CutErrors(OutputErrors):
    """Asks one canonical model about cuts of its channels."""

    def __init__(
        self, model: ir.Model, analysis: Analysis, calibration: CalibrationData, samples: int, *, threads: int = 1
    ) -> None:
        super().__init__(model, calibration, samples, threads=threads)
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
        lost = matrix[refit.part][:, :, refit.removed]
        rows = slice(refit.part * outputs, (refit.part + 1) * outputs)
        matrix[refit.part] -= lost @ refit.transfer.T
        if layer.can_shift:
            bias[rows] += lost.sum(axis=1) @ (refit.transfer.T @ refit.mean)
    layer.write(graph, matrix, bias)


def _first(calibration: CalibrationData, samples: int) -> Iterator[dict[str, np.ndarray]]:
    """Whole batches until there are enough samples."""
    seen = 0
    for feeds in calibration.held_out():
        if seen >= samples:
            return
        yield {name: array.copy() for name, array in feeds.items()}  # the source may fill the same array again
        seen += max(len(next(iter(feeds.values()))), 1)


def _square(array: np.ndarray) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.square(array).sum())
