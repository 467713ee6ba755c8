"""An ONNX graph as a torch module with the layers that tools for torch look for: Conv2d, Linear, BatchNorm2d.

Parameters keep the names of the initializers, so that what a tool did to a layer is written back into the same graph
(`to_onnx`), whatever the tool does to the module's class. Everything else is a function of tensors: `onnx_functions`.
Only evaluation, and only what the zoo's graphs hold; `checked_module` compares with the dense model's own answers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from benchmarks.peers.onnx_functions import FUNCTIONS
from benchmarks.peers.runner import Job

TOLERANCE = 1e-3
"""Largest difference to the dense answers that the module may have, relative to their largest magnitude."""


class OnnxModule(nn.Module):
    """`forward` takes the graph's inputs by name and gives its outputs, one as it is, several as a tuple."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        self.model = model
        arrays = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}
        self.layers = nn.ModuleDict()
        self.places: dict[str, tuple[str, str, bool]] = {}
        """Initializer → layer, attribute of the layer, whether it is transposed."""
        for node in model.graph.node:
            made = _layer(node, arrays)
            if made is not None:
                layer, places = made
                self.layers[_key(node)] = layer
                self.places |= {name: (_key(node), attribute, turned) for name, (attribute, turned) in places.items()}
        self.constants = {
            name: torch.from_numpy(np.array(array)) for name, array in arrays.items() if name not in self.places
        }
        self.eval()

    def forward(self, **inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        values: dict[str, Tensor | None] = {**self.constants, **inputs, "": None}
        for node in self.model.graph.node:
            if _key(node) in self.layers:
                values[node.output[0]] = self.layers[_key(node)](values[node.input[0]])
                continue
            attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
            values[node.output[0]] = FUNCTIONS[node.op_type](attributes, *(values[name] for name in node.input))
        found = tuple(values[output.name] for output in self.model.graph.output)
        return found if len(found) > 1 else found[0]

    def layer(self, weight: str) -> nn.Module:
        return self.layers[self.places[weight][0]]

    def last_layers(self) -> Iterator[str]:
        """Weights of the layers that no other layer comes after: their outputs are the model's."""
        reached = {output.name for output in self.model.graph.output}
        for node in reversed(self.model.graph.node):
            if not reached.intersection(node.output):
                continue
            if _key(node) in self.layers and isinstance(self.layers[_key(node)], nn.Linear | nn.Conv2d):
                yield next(name for name in node.input if name in self.places)
            else:
                reached.update(node.input)

    def to_onnx(self) -> onnx.ModelProto:
        """The graph with the layers' parameters as they are now."""
        result = onnx.ModelProto()
        result.CopyFrom(self.model)
        for weight in result.graph.initializer:
            if weight.name in self.places:
                key, attribute, turned = self.places[weight.name]
                array = getattr(self.layers[key], attribute).detach().numpy()
                array = np.ascontiguousarray(array.T if turned else array)
                weight.CopyFrom(numpy_helper.from_array(array, weight.name))
        return result


def checked_module(job: Job) -> OnnxModule:
    """The dense model as a module.

    Raises:
        ValueError: it does not answer as the dense model does, or has operators that no function is there for.
    """
    model = job.dense()
    unknown = sorted({node.op_type for node in model.graph.node} - {*FUNCTIONS, *_LAYERS})
    if unknown:
        raise ValueError(f"no torch module: {', '.join(unknown)} cannot be translated")
    module, answers = OnnxModule(model), job.answers()
    first = job.batches(len(answers[0]))[0]
    feeds = {name: torch.from_numpy(array) for name, array in first.items()}
    with torch.no_grad():
        found = module(**feeds)
    for wanted, got in zip(answers, found if isinstance(found, tuple) else (found,), strict=True):
        difference = np.abs(got.numpy() - wanted).max() / np.abs(wanted).max()
        if not difference <= TOLERANCE:
            raise ValueError(f"the torch module differs from the dense model by {difference:.1e}")
    return module


_LAYERS = ("BatchNormalization", "Conv", "Gemm")


def _key(node: onnx.NodeProto) -> str:
    """A name without dots, which torch keeps for modules in modules."""
    return node.output[0].replace(".", "/")


def _layer(node: onnx.NodeProto, arrays: dict[str, np.ndarray]) -> tuple[nn.Module, dict[str, tuple[str, bool]]] | None:
    """A module and where each of its initializers went, for layers whose weights are constants."""
    own = [name for name in node.input[1:] if name]
    if not own or any(name not in arrays for name in own):
        return None
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    turned = False
    if node.op_type == "Conv":
        layer: nn.Module = _conv(attributes, arrays[own[0]], has_bias=len(own) > 1)
    elif node.op_type == "Gemm" and attributes.get("alpha", 1) == attributes.get("beta", 1) == 1:
        turned = not attributes.get("transB", 0)
        layer = _linear(arrays[own[0]].T if turned else arrays[own[0]], has_bias=len(own) > 1)
    elif node.op_type == "MatMul" and arrays[own[0]].ndim == 2:
        turned = True
        layer = _linear(arrays[own[0]].T, has_bias=False)
    elif node.op_type == "BatchNormalization":
        layer = nn.BatchNorm2d(len(arrays[own[0]]), eps=attributes.get("epsilon", 1e-5))
    else:
        return None
    names = ("weight", "bias", "running_mean", "running_var")
    places = {name: (attribute, turned and attribute == "weight") for name, attribute in zip(own, names, strict=False)}
    with torch.no_grad():
        for name, (attribute, is_turned) in places.items():
            array = np.array(arrays[name].T if is_turned else arrays[name])
            getattr(layer, attribute).copy_(torch.from_numpy(array))
    return layer, places


def _linear(weight: np.ndarray, *, has_bias: bool) -> nn.Linear:
    return nn.Linear(weight.shape[1], weight.shape[0], bias=has_bias)


class PaddedConv2d(nn.Conv2d):
    """Another padding before than after, as in strided convolutions that came from TensorFlow."""

    pads: tuple[int, int, int, int]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(x, self.pads))


def _conv(attributes: dict[str, list[int]], weight: np.ndarray, *, has_bias: bool) -> nn.Conv2d:
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    is_even = (top, left) == (bottom, right)
    groups = attributes.get("group", 1)
    layer = (nn.Conv2d if is_even else PaddedConv2d)(
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        stride=tuple(attributes.get("strides", [1, 1])),
        padding=(top, left) if is_even else 0,
        dilation=tuple(attributes.get("dilations", [1, 1])),
        groups=groups,
        bias=has_bias,
    )
    if isinstance(layer, PaddedConv2d):
        layer.pads = (left, right, top, bottom)
    return layer
