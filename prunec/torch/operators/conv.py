"""Convolutions of any number of spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from prunec.torch.operators.common import flat_pads, resolve_pads

_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSE = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}


def conv(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    strides: tuple[int, ...] | None = None,
    pads: tuple[int, ...] | None = None,
    dilations: tuple[int, ...] | None = None,
    group: int = 1,
    kernel_shape: tuple[int, ...] | None = None,
    auto_pad: str = "NOTSET",
) -> Any:
    """x [N, C, …], weight [M, C/group, …]."""
    rank = weight.dim() - 2
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    amounts = resolve_pads(x.shape[2:], weight.shape[2:], strides, dilations, pads, auto_pad)
    if any(low != high for low, high in amounts):
        x, amounts = functional.pad(x, flat_pads(amounts)), [(0, 0)] * rank
    padding = tuple(low for low, _ in amounts)
    if rank == 2 and x.shape[3] == weight.shape[3] == 1 and padding[1] == 0:
        return _lying(x, weight, bias, strides, padding, dilations, group)
    return _CONV[rank](x, weight, bias, strides, padding, dilations, group)


def _lying(
    x: Any, weight: Any, bias: Any, strides: Sequence[int], padding: Sequence[int], dilations: Sequence[int], group: int
) -> Any:
    """A convolution along a column, made along a row: kernels for CPUs take several places of a row at a time.

    The first layer of crepe-tiny takes a tenth of the time with its gradient (128 filters of 512, one AVX2 core).
    """
    x, weight = x.transpose(2, 3), weight.transpose(2, 3)
    turned = [(values[1], values[0]) for values in (strides, padding, dilations)]
    return functional.conv2d(x, weight, bias, *turned, group).transpose(2, 3)


def conv_transpose(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    strides: tuple[int, ...] | None = None,
    pads: tuple[int, ...] | None = None,
    dilations: tuple[int, ...] | None = None,
    group: int = 1,
    kernel_shape: tuple[int, ...] | None = None,
    auto_pad: str = "NOTSET",
    output_padding: tuple[int, ...] | None = None,
    output_shape: tuple[int, ...] | None = None,
) -> Any:
    """x [N, C, …], weight [C, M/group, …]. Uneven paddings crop the full result."""
    rank = weight.dim() - 2
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    extra = output_padding or (0,) * rank
    full = [
        (x.shape[2 + i] - 1) * strides[i] + (weight.shape[2 + i] - 1) * dilations[i] + 1 + extra[i] for i in range(rank)
    ]
    if output_shape is not None or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        wanted = output_shape[-rank:] if output_shape else [x.shape[2 + i] * strides[i] for i in range(rank)]
        totals = [max(f - w, 0) for f, w in zip(full, wanted, strict=True)]
        amounts = [(t // 2, t - t // 2) if auto_pad == "SAME_UPPER" else (t - t // 2, t // 2) for t in totals]
    else:
        amounts = resolve_pads((), (0,) * rank, strides, dilations, pads, auto_pad)
    if all(low == high for low, high in amounts):
        padding = tuple(low for low, _ in amounts)
        return _TRANSPOSE[rank](x, weight, bias, strides, padding, extra, group, dilations)
    y = _TRANSPOSE[rank](x, weight, bias, strides, (0,) * rank, extra, group, dilations)
    for axis, (low, high) in enumerate(amounts, start=2):
        y = torch.narrow(y, axis, low, y.shape[axis] - low - high)
    return y


OPERATORS = {"Conv": conv, "ConvTranspose": conv_transpose}
