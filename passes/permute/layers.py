"""A sparse layer as a search for orders sees it: saliencies, and which channel classes lie along its axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunec.graph import Analysis
from prunec.graph.orders import moved
from prunec.graph.rules.base import attribute
from prunec.passes.compensate.find import find_layers
from prunec.passes.compensate.layers import ConvLayer, GemmLayer, Layer
from prunec.passes.solve.permutation import Side, input_side, output_side
from prunec.passes.sparsify import LayerPattern
from prunec.patterns import Layout

Ids = np.ndarray | None
LARGEST = 1 << 26
"""Elements of a weight whose saliency is looked at (256 MiB in float32)."""


@dataclass(frozen=True)
class HeldLayer:
    """`energy` [groups, channels]: E[x²] of the inputs, centred where a bias can be corrected.

    `ins` [channels] and `outs` [outputs]: class ids of one convolution group's channels; None where none may move.
    """

    layer: Layer
    wanted: LayerPattern
    energy: np.ndarray
    ins: Ids
    outs: Ids

    @property
    def name(self) -> str:
        return self.layer.name

    def columns(self, source: np.ndarray) -> np.ndarray | None:
        """Which input channel goes to each place, None where all stay. `source` [classes] as in `graph.orders`."""
        return _moved(self.ins, source)

    def rows(self, source: np.ndarray) -> np.ndarray | None:
        """The same for the outputs."""
        return _moved(self.outs, source)

    def saliency(self, source: np.ndarray) -> np.ndarray:
        """w²·E[x²] in the given order, float32 [groups, outputs, positions·channels]; it sums to one."""
        matrix = np.square(self.layer.matrix(), dtype=np.float32) * self.energy[:, None, None, :].astype(np.float32)
        columns, rows = self.columns(source), self.rows(source)
        matrix = matrix if columns is None else matrix[..., columns]
        matrix = matrix if rows is None else matrix[:, rows]
        found: np.ndarray = (matrix / (matrix.sum(dtype=np.float64) or 1.0)).reshape(*matrix.shape[:2], -1)
        return found

    def layout(self) -> Layout:
        return Layout(*self.layer.matrix().shape[2:])

    def kept(self, source: np.ndarray) -> float:
        """The share of the saliency that the pattern keeps."""
        pattern, level, layout = self.wanted.pattern, self.wanted.level, self.layout()
        groups = (s.astype(np.float64) for s in self.saliency(source))
        return float(sum(s[pattern.project(s, layout, level)].sum() for s in groups))

    def sides(self, classes: np.ndarray, source: np.ndarray) -> list[Side]:
        """What the order of `classes` decides here; empty where it decides nothing, or not by whole groups."""
        pattern, level = self.wanted.pattern, self.wanted.level
        touched = [ids is not None and bool(np.isin(classes, ids).any()) for ids in (self.ins, self.outs)]
        if not any(touched):
            return []
        found: list[Side] = []
        for saliency in self.saliency(source):
            if touched[0]:
                found += _at(input_side(saliency, self.layout(), pattern, level), self.ins, classes)
            if touched[1]:
                found += _at(output_side(saliency, pattern, level), self.outs, classes)
        return found


def _moved(ids: Ids, source: np.ndarray) -> np.ndarray | None:
    return None if ids is None or (source[ids] == ids).all() else moved(ids, source)


def _at(side: Side | None, ids: Ids, classes: np.ndarray) -> list[Side]:
    """`side` at the places of `classes`, one for each time that they come; empty where groups would be torn."""
    if side is None or ids is None:
        return []
    places = np.flatnonzero(np.isin(ids, classes))
    if len(places) % len(classes):
        return []
    by_class = places[np.argsort(ids[places], kind="stable")].reshape(len(classes), -1)
    found = []
    for columns in by_class.T:
        if len(columns) % side.group:
            return []
        runs = columns.reshape(-1, side.group)
        if (runs[:, 0] % side.group).any() or (runs != runs[:, :1] + np.arange(side.group)).any():
            return []
        found.append(side.at(columns))
    return found


def held_layers(
    model: ir.Model,
    wanted: Mapping[str, LayerPattern],
    orders: Analysis,
    energy: Mapping[str, np.ndarray],
    kept: Callable[[str, int, int], Ids],
) -> list[HeldLayer]:
    """The `wanted` layers of the (cut) `model`, in graph order, but those too large to look at.

    `orders` is about the whole model; `kept` (node, input, axis) says which positions of a weight the cut left.
    `energy` by node name, per input channel of the cut model; of other layers all channels count alike.
    """
    found = []
    for layer in find_layers(model)[0]:
        if not isinstance(layer, Layer) or layer.name not in wanted:
            continue
        groups, outputs, positions, channels = layer.matrix().shape
        if groups * outputs * positions * channels > LARGEST:
            continue
        axes = orders.use_axes.get((layer.name, layer.weight_index), ())
        own = []
        for axis, length in zip(_axes(layer), (channels, outputs), strict=True):
            ids = axes[axis] if axes else None
            mask = kept(layer.name, layer.weight_index, axis)
            own.append(None if ids is None else (ids if mask is None else ids[mask])[:length])
        scale = energy.get(layer.name, np.ones(groups * channels)).reshape(groups, channels)
        found.append(HeldLayer(layer, wanted[layer.name], scale, own[0], own[1]))
    return found


def _axes(layer: Layer) -> tuple[int, int]:
    """The weight's axes of input channels and of outputs."""
    if isinstance(layer, ConvLayer):
        return (0, 1) if layer.is_transposed else (1, 0)
    if isinstance(layer, GemmLayer):
        return (1, 0) if attribute(layer.node, "transB", 0) else (0, 1)
    return (0, 1) if layer.weight_index == 1 else (1, 0)
