"""ONNX operators as functions of torch tensors: (attributes, *inputs) → output. What the zoo's graphs hold, no more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx
import torch
from torch import Tensor
from torch.nn import functional

Attributes = Mapping[str, Any]
DTYPES = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.BOOL: torch.bool,
}


def _axes(attributes: Attributes, axes: Tensor | None) -> list[int]:
    """An input since opset 13, an attribute before."""
    return attributes["axes"] if axes is None else axes.tolist()


def _unsqueeze(attributes: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    wanted = _axes(attributes, axes)
    for axis in sorted(axis % (x.ndim + len(wanted)) for axis in wanted):
        x = x.unsqueeze(axis)
    return x


def _reduce(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def reduce(attributes: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
        return function(x, dim=_axes(attributes, axes), keepdim=bool(attributes.get("keepdims", 1)))

    return reduce


def _reshape(_: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(shape.tolist())]
    if sizes == [x.shape[0], -1] or (len(sizes) == 2 and sizes[0] == -1 and x[0].numel() == sizes[1]):
        return x.flatten(1)  # the constant width of a classifier does not bind what is cut before it
    return x.reshape(sizes)


def _slice(_: Attributes, x: Tensor, starts: Tensor, ends: Tensor, *axes_steps: Tensor) -> Tensor:
    if len(axes_steps) > 1 and set(axes_steps[1].tolist()) != {1}:
        raise ValueError("no torch module: a Slice with steps")
    axes = axes_steps[0].tolist() if axes_steps else range(len(starts))
    index = [slice(None)] * x.ndim
    for axis, start, end in zip(axes, starts.tolist(), ends.tolist(), strict=True):
        index[axis] = slice(start, end)
    return x[tuple(index)]


def _pads(pads: Sequence[int]) -> list[int]:
    """[before…, after…] → torch's last axis first."""
    half = len(pads) // 2
    return [pads[i + side] for i in reversed(range(half)) for side in (0, half)]


def _pool(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def pool(attributes: Attributes, x: Tensor) -> Tensor:
        if attributes.get("ceil_mode", 0) or any(attributes.get("pads", [])):
            raise ValueError("no torch module: padded pooling")
        return function(x, attributes["kernel_shape"], attributes.get("strides"))

    return pool


def _clip(attributes: Attributes, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    bounds = [None if bound is None else float(bound) for bound in (low, high)]
    return torch.clamp(x, bounds[0] if low is not None else attributes.get("min"), bounds[1])


def _hard_sigmoid(attributes: Attributes, x: Tensor) -> Tensor:
    return torch.clamp(x * attributes.get("alpha", 0.2) + attributes.get("beta", 0.5), 0, 1)


def _layer_norm(attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    return functional.layer_norm(x, scale.shape, scale, bias, attributes.get("epsilon", 1e-5))


def _squeeze(attributes: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze(tuple(_axes(attributes, axes)))


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "Add": lambda _, a, b: a + b,
    "AveragePool": _pool(functional.avg_pool2d),
    "Cast": lambda attributes, x: x.to(DTYPES[attributes["to"]]),
    "Clip": _clip,
    "Concat": lambda attributes, *parts: torch.cat(parts, attributes["axis"]),
    "Div": lambda _, a, b: a / b if a.is_floating_point() else a // b,
    "Erf": lambda _, x: torch.erf(x),
    "Flatten": lambda attributes, x: x.flatten(attributes.get("axis", 1)),
    "Gather": lambda attributes, x, i: x[i] if i.ndim == 0 else functional.embedding(i, x),
    "GlobalAveragePool": lambda _, x: functional.adaptive_avg_pool2d(x, 1),
    "HardSigmoid": _hard_sigmoid,
    "LayerNormalization": _layer_norm,
    "MatMul": lambda _, a, b: a @ b,
    "MaxPool": _pool(functional.max_pool2d),
    "Mul": lambda _, a, b: a * b,
    "Pad": lambda _, x, pads, *__: functional.pad(x, _pads(pads.tolist())),
    "Pow": lambda _, a, b: a**b,
    "ReduceL2": _reduce(torch.linalg.vector_norm),
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "Relu": lambda _, x: torch.relu(x),
    "Reshape": _reshape,
    "Shape": lambda _, x: torch.tensor(x.shape),
    "Sigmoid": lambda _, x: torch.sigmoid(x),
    "Slice": _slice,
    "Softmax": lambda attributes, x: torch.softmax(x, attributes.get("axis", -1)),
    "Sqrt": lambda _, x: torch.sqrt(x),
    "Squeeze": _squeeze,
    "Sub": lambda _, a, b: a - b,
    "Transpose": lambda attributes, x: x.permute(attributes["perm"]),
    "Unsqueeze": _unsqueeze,
}
