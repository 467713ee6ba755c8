"""Pooling over windows and over everything."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch
from torch.nn import functional

from prunec.graph.rules.base import attribute
from prunec.torch.operators.common import flat_pads, resolve_pads

_MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_AVERAGE = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


def max_pool(
    x: Any,
    *,
    kernel_shape: tuple[int, ...],
    strides: tuple[int, ...] | None = None,
    pads: tuple[int, ...] | None = None,
    dilations: tuple[int, ...] | None = None,
    ceil_mode: int = 0,
    auto_pad: str = "NOTSET",
    storage_order: int = 0,
) -> Any:
    rank = len(kernel_shape)
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    amounts = resolve_pads(x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad)
    if any(low != high or 2 * low > k for (low, high), k in zip(amounts, kernel_shape, strict=True)):
        lowest = float("-inf") if x.is_floating_point() else torch.iinfo(x.dtype).min
        x, amounts = functional.pad(x, flat_pads(amounts), value=lowest), [(0, 0)] * rank
    padding = tuple(low for low, _ in amounts)
    return _MAX[rank](x, kernel_shape, strides, padding, dilations, bool(ceil_mode))


def average_pool(
    x: Any,
    *,
    kernel_shape: tuple[int, ...],
    strides: tuple[int, ...] | None = None,
    pads: tuple[int, ...] | None = None,
    dilations: tuple[int, ...] | None = None,
    ceil_mode: int = 0,
    auto_pad: str = "NOTSET",
    count_include_pad: int = 0,
) -> Any:
    """Uneven paddings: the sum over the padded input, divided by how many positions each window holds."""
    rank = len(kernel_shape)
    strides = strides or (1,) * rank
    amounts = resolve_pads(x.shape[2:], kernel_shape, strides, (1,) * rank, pads, auto_pad)
    if all(low == high and 2 * low <= k for (low, high), k in zip(amounts, kernel_shape, strict=True)):
        padding = tuple(low for low, _ in amounts)
        return _AVERAGE[rank](x, kernel_shape, strides, padding, bool(ceil_mode), bool(count_include_pad))
    padded = functional.pad(x, flat_pads(amounts))
    y = _AVERAGE[rank](padded, kernel_shape, strides, 0, bool(ceil_mode))
    if count_include_pad:
        return y
    inside = functional.pad(torch.ones_like(x[:1, :1]), flat_pads(amounts))
    return y / _AVERAGE[rank](inside, kernel_shape, strides, 0, bool(ceil_mode))


def global_average_pool(x: Any) -> Any:
    return torch.mean(x, tuple(range(2, x.dim())), keepdim=True)


def global_max_pool(x: Any) -> Any:
    return torch.amax(x, tuple(range(2, x.dim())), keepdim=True)


def _max_refusal(node: ir.Node) -> str | None:
    return "it returns indices" if len(node.outputs) > 1 and node.outputs[1].uses() else None


def _average_refusal(node: ir.Node) -> str | None:
    return "dilations" if any(d != 1 for d in attribute(node, "dilations", ())) else None


OPERATORS = {
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average_pool,
    "GlobalMaxPool": global_max_pool,
    "MaxPool": max_pool,
}
REFUSALS = {"MaxPool": _max_refusal, "AveragePool": _average_refusal}
