"""Equalisation across coupled channels: what is too small for the scale that it shares grows, its readers shrink.

    x_c → x_c / t_c behind its producers (rows of weights and biases),   W_:c → W_:c · t_c in its readers

Channels on one grid (a value's, or the values' that additions couple) get ranges as alike as the readers' weights can
bear: t_c = r_c^α / w_c^(1−α), r_c the largest |x_c|, w_c the largest |W_:c|. α = ½ is the balance of Data-Free
Quantization (Nagel et al., 2019) and of SmoothQuant (arXiv 2211.10438); with α = 1 the activations alone decide, which
is free where the readers are depthwise. Powers of two, so that the rewritten model computes the same numbers.

Possible where all between producers and readers is linear or homogeneous: ReLU, additions, pools, not ReLU6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunec.graph.shapes import dims, is_constant
from prunec.passes.compensate.constants import set_constant
from prunec.passes.compensate.layers import ConvLayer, Layer
from prunec.passes.quantise.placement import quantisable
from prunec.passes.quantise.write import weight_axis

HOMOGENEOUS = frozenset(
    {"Relu", "LeakyRelu", "Identity", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Add", "Dropout"}
)
"""f(t · x) = t · f(x) for t > 0, channel by channel."""
SHAPERS = frozenset({"Flatten", "Squeeze", "Reshape"})
"""The same where channels stay the second axis and nothing is left behind it."""
STRONGEST = 6
"""Powers of two that a channel is scaled by at most, either way."""
ALPHAS = (0.5, 1.0)


@dataclass(frozen=True)
class Coupled:
    """Values whose channels have one factor each: by name, with the layers that make and that read them."""

    values: tuple[str, ...]
    producers: tuple[str, ...]
    readers: tuple[str, ...]
    channels: int


def coupled(model: ir.Model) -> list[Coupled]:
    """All such sets of `model`, in graph order."""
    layers = {layer.name: layer for layer in quantisable(model) if not layer.adds_bias_outside}
    seen: set[ir.Value] = set()
    found = []
    for layer in layers.values():
        start = layer.node.outputs[0]
        if start in seen:
            continue
        own = _spread(start, layers)
        if isinstance(own, Coupled):
            found.append(own)
            seen |= {value for node in model.graph for value in node.outputs if value.name in own.values}
        else:
            seen |= own
    return found


def _spread(start: ir.Value, layers: Mapping[str, Layer]) -> Coupled | set[ir.Value]:
    """From one value to all that share its channels; only the values where something stands in the way."""
    values, waiting = {start: None}, [start]
    producers, readers = dict[str, None](), dict[str, None]()
    channels, is_free = _channels(start), True
    while waiting:
        value = waiting.pop()
        is_free &= not value.is_graph_output() and channels is not None and _channels(value) == channels
        nodes = [use.node for use in value.uses()]
        maker = value.producer()
        if maker is None:
            is_free = False
        elif str(maker.name) in layers:
            producers[str(maker.name)] = None
        else:
            nodes.append(maker)
        for node in nodes:
            name = str(node.name)
            if name in layers and layers[name].data is value:
                readers[name] = None
                is_free &= _groups(layers[name]) in (1, channels)
            elif _passes(node):
                more = [v for v in (*node.inputs[: _operands(node)], node.outputs[0]) if v is not None]
                is_free &= not any(is_constant(v) for v in more)
                new = [v for v in more if v not in values and not is_constant(v)]
                values |= dict.fromkeys(new)
                waiting += new
            else:
                is_free = False
    if not is_free or channels is None or not readers:
        return set(values)
    names = tuple(str(value.name) for value in values)
    return Coupled(names, tuple(producers), tuple(readers), channels)


def _operands(node: ir.Node) -> int:
    return 2 if node.op_type == "Add" else 1


def _passes(node: ir.Node) -> bool:
    if node.domain not in ("", "ai.onnx") or len(node.outputs) != 1:
        return False
    if node.op_type in SHAPERS:
        shapes = [dims(node.inputs[0]), dims(node.outputs[0])]
        return all(shape is not None and len(shape) > 1 and all(d == 1 for d in shape[2:]) for shape in shapes)
    return node.op_type in HOMOGENEOUS


def _channels(value: ir.Value) -> int | None:
    shape = dims(value)
    return int(shape[1]) if shape is not None and len(shape) > 1 and isinstance(shape[1], int) else None


def factors(model: ir.Model, ranges: Mapping[str, np.ndarray], alpha: float) -> list[tuple[Coupled, np.ndarray]]:
    """For every set the powers of two t [channels]; `ranges` has the largest |x_c| [channels] of values by name."""
    layers = {layer.name: layer for layer in quantisable(model)}
    found = []
    for own in coupled(model):
        seen = np.max([ranges[name] for name in own.values if name in ranges], axis=0, initial=0.0)
        weights = np.max([_columns(layers[name], own.channels) for name in own.readers], axis=0)
        alive = (seen > 0) & (weights > 0)
        if not alive.any():
            continue
        wish = np.zeros(own.channels)
        free = all(_is_depthwise(layers[name]) for name in own.readers)
        share = 1.0 if free else alpha
        wish[alive] = share * np.log2(seen[alive]) - (1 - share) * np.log2(weights[alive])
        wish[alive] -= wish[alive].max() if free or alpha == 1 else wish[alive].mean()
        steps = np.clip(np.rint(wish), -STRONGEST, STRONGEST)
        if steps.any():
            found.append((own, np.exp2(steps)))
    return found


def equalised(model: ir.Model, found: list[tuple[Coupled, np.ndarray]]) -> ir.Model:
    """A copy of `model` that computes the same, with these factors."""
    copy = model.clone()
    layers = {layer.name: layer for layer in quantisable(copy)}
    for own, scale in found:
        for name in own.producers:
            _scale(copy.graph, layers[name], 1 / scale, outputs=True)
        for name in own.readers:
            _scale(copy.graph, layers[name], scale, outputs=False)
    return copy


def _scale(graph: ir.Graph, layer: Layer, scale: np.ndarray, *, outputs: bool) -> None:
    node = layer.node
    weight = layer.weight(layer.weight_index)
    out = weight_axis(layer)
    depthwise = not outputs and _is_depthwise(layer)
    axis = out if outputs or depthwise else 1 - out
    shape = [1] * weight.ndim
    shape[axis] = -1
    set_constant(graph, node, layer.weight_index, weight * scale.reshape(shape))
    if outputs and len(node.inputs) > 2 and node.inputs[2] is not None:
        set_constant(graph, node, 2, layer.bias_of(2, len(scale)) * scale)


def _is_depthwise(layer: Layer) -> bool:
    return _groups(layer) > 1


def _groups(layer: Layer) -> int:
    """1, or the channels of a depthwise convolution; −1 where others share an input."""
    if not isinstance(layer, ConvLayer) or layer.groups == 1:
        return 1
    return layer.groups if len(layer.bias()) == layer.groups else -1


def _columns(layer: Layer, channels: int) -> np.ndarray:
    """The largest |weight| that reads each channel [channels]."""
    weight = np.abs(np.asarray(layer.weight(layer.weight_index), np.float64))
    axis = 0 if _is_depthwise(layer) else 1 - weight_axis(layer)
    found: np.ndarray = np.moveaxis(weight, axis, 0).reshape(channels, -1).max(axis=1)
    return found
