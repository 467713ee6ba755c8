"""What the operator functions share: the two annotations, integers from either form, paddings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import onnx_ir as ir
import torch

Ints: TypeAlias = Any
"""Sequence[int], an integer tensor, or None."""
Buffer: TypeAlias = Any
"""A tensor that is not trained."""


def ints(values: Ints) -> list[int] | None:
    """Plain integers of either form."""
    if values is None:
        return None
    if isinstance(values, torch.Tensor):
        values = values.tolist()
    return [int(values)] if isinstance(values, int | float) else [int(v) for v in values]


def torch_type(number: int) -> Any:
    """The torch dtype of an ONNX element type."""
    name = ir.DataType(number).name.lower()
    return getattr(torch, {"float": "float32", "double": "float64"}.get(name, name))


def resolve_pads(
    size: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int] | None,
    auto_pad: str,
) -> list[tuple[int, int]]:
    """(before, after) of every spatial axis; `size` are the lengths that SAME_UPPER and SAME_LOWER depend on."""
    rank = len(kernel)
    if auto_pad in ("NOTSET", "VALID"):
        own = list(pads) if pads and auto_pad == "NOTSET" else [0] * (2 * rank)
        return list(zip(own[:rank], own[rank:], strict=True))
    found = []
    for length, k, stride, dilation in zip(size, kernel, strides, dilations, strict=True):
        total = max((math.ceil(length / stride) - 1) * stride + (k - 1) * dilation + 1 - length, 0)
        small, large = total // 2, total - total // 2
        found.append((small, large) if auto_pad == "SAME_UPPER" else (large, small))
    return found


def flat_pads(pads: Sequence[tuple[int, int]]) -> list[int]:
    """In the order of `torch.nn.functional.pad`: last axis first."""
    return [amount for pair in reversed(pads) for amount in pair]
