"""What a fit sees of one layer: pruned inputs, dense outputs cut to the kept channels, and the addition behind it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunec.graph import Analysis
from prunec.graph.shapes import dims
from prunec.passes.compensate.find import Residual
from prunec.passes.compensate.layers import Layer
from prunec.passes.compensate.runner import SequentialRunner


@dataclass(frozen=True)
class Kept:
    """Which positions of the dense model's tensors are left."""

    analysis: Analysis
    alive: np.ndarray

    def masks(self, name: str, rank: int) -> list[np.ndarray | None]:
        """Per axis a bool mask, or None where nothing is cut."""
        axes = self.analysis.value_axes.get(name, (None,) * rank)
        found = [None if ids is None else self.alive[ids] for ids in axes]
        return [None if mask is None or mask.all() else mask for mask in found]

    def restrict(self, name: str, array: np.ndarray, *, but: int | None = None) -> np.ndarray:
        """The kept positions of a dense value; axis `but` stays whole."""
        for axis, mask in enumerate(self.masks(name, array.ndim)):
            if mask is not None and axis != (None if but is None else but % array.ndim):
                array = array.compress(mask, axis=axis)
        return array


@dataclass(frozen=True)
class Pair:
    """One batch: x of the pruned model, the target t for its output, and what t + drifted has to be."""

    x: np.ndarray
    target: np.ndarray
    reference: np.ndarray
    drifted: np.ndarray | None = None


@dataclass(frozen=True)
class Pairs:
    """All batches of one layer while the runner stands at it."""

    runner: SequentialRunner
    layer: Layer
    dense_node: ir.Node
    residual: Residual | None
    kept: Kept

    @property
    def output(self) -> str:
        """Name of the layer's output, in both models."""
        return self.layer.node.outputs[0].name or ""

    @property
    def dense_input(self) -> str:
        value = self.dense_node.inputs[self.layer.data_index]
        assert value is not None
        return value.name or ""

    def pair(self, batch: int) -> Pair:
        """t = y_d, or y_d + (s_d − s_p) where the output is added to s; the reference is y_d or y_d + s_d."""
        x = self.runner.value("pruned", self.layer.data.name or "", batch)
        target = self._dense(self.output, batch)
        if self.residual is None:
            return Pair(x, target, target)
        reference = target + self._dense(self.residual.operand, batch)
        drifted = widened(self.runner.value("pruned", self.residual.operand, batch))
        return Pair(x, reference - drifted, reference, drifted)

    def refusal(self) -> str | None:
        """Why the two models cannot be compared here: shapes that depend on the data came out differently."""
        rows, is_known = 0, has_known_shape(self.dense_node, self.layer.data_index)
        for batch in (*self.runner.fit, *self.runner.held_out):
            shape = self.runner.shape("pruned", self.layer.data.name or "", batch)
            rows += math.prod(shape) if batch in self.runner.fit else 0
            if is_known:
                continue
            dense = self.runner.shape("dense", self.dense_input, batch)
            masks = self.kept.masks(self.dense_input, len(dense))
            if shape != tuple(d if mask is None else int(mask.sum()) for d, mask in zip(dense, masks, strict=True)):
                return "the shape of its input depends on the data and differs between the models"
        return None if rows else "no calibration sample reaches it"

    def dense_data(self, batch: int) -> np.ndarray:
        """The dense model's input of the layer with all its channels; other axes are cut."""
        array = self.runner.value("dense", self.dense_input, batch)
        return self.kept.restrict(self.dense_input, array, but=self.layer.data_axis)

    def _dense(self, name: str, batch: int) -> np.ndarray:
        return widened(self.kept.restrict(name, self.runner.value("dense", name, batch)))

    def fit(self) -> Iterator[Pair]:
        return (self.pair(batch) for batch in self.runner.fit)

    def held_out(self) -> Iterator[Pair]:
        return (self.pair(batch) for batch in self.runner.held_out)


def has_known_shape(node: ir.Node, index: int) -> bool:
    """Whether the lengths of the graph's inputs decide an operand's: then both models have the same there."""
    shape, graph = dims(node.inputs[index]), node.graph
    if shape is None or not isinstance(graph, ir.Graph):
        return False
    given = {d for value in graph.inputs for d in dims(value) or () if isinstance(d, str)}
    return all(isinstance(d, int) or d in given for d in shape)


def widened(array: np.ndarray) -> np.ndarray:
    """Half precision as float32, so that sums do not overflow."""
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)
