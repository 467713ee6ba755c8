"""Quantisers in real numbers, with gradients through the rounding.

    q = clip(round(x / s) + z, lowest, highest),    x' = (q − z) s,    ∂x'/∂x = 1 where nothing clips, else 0

Rounding passes gradients on as they come (the straight-through estimator, Bengio et al., arXiv 1308.3432). Scales and
zero points are constants. Integers are float32 numbers here, so that only a DequantizeLinear may read them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import torch

from prunec.graph.shapes import dims
from prunec.graph.weights import block_size
from prunec.torch.operators.common import Buffer

_TYPES = (ir.DataType.INT8, ir.DataType.UINT8)


def quantize_linear(x: Any, scale: Buffer, zero: Any = None, *, axis: int = 1, **others: int) -> Any:
    """q [shape of x] in the dtype of x; `scale` and `zero` are single or run along `axis`, uint8 without `zero`."""
    limits = torch.iinfo(torch.uint8 if zero is None else zero.dtype)
    raw = x / _along(scale, x, axis)
    rounded = torch.round(raw).detach() + (raw - raw.detach())
    shifted = rounded if zero is None else rounded + _along(zero, x, axis).to(x.dtype)
    return torch.clamp(shifted, limits.min, limits.max)


def dequantize_linear(q: Any, scale: Buffer, zero: Any = None, *, axis: int = 1, **others: int) -> Any:
    """(q − z) s [shape of q] in the dtype of `scale`; q may be integers, where they are constants."""
    found = q.to(scale.dtype)
    if zero is not None:
        found = found - _along(zero, q, axis).to(scale.dtype)
    return found * _along(scale, q, axis)


def _along(values: Any, x: Any, axis: int) -> Any:
    """`values` [channels] so that they go with `axis` of x; single ones as they are."""
    if values.numel() == 1:
        return values.reshape(())
    shape = [1] * x.dim()
    shape[axis] = -1
    return values.reshape(shape)


def _refusal(node: ir.Node) -> str | None:
    if block_size(node) or len(dims(node.inputs[1]) or ()) > 1:
        return "a scale for each block"
    if node.op_type == "DequantizeLinear":
        return None
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    if zero is not None and zero.dtype not in _TYPES:
        return f"integers of type {zero.dtype}"
    made = node.outputs[0]
    if made.is_graph_output() or any(use.node.op_type != "DequantizeLinear" for use in made.uses()):
        return "integers that something else than DequantizeLinear reads"
    return None


OPERATORS: dict[str, Callable[..., Any]] = {"QuantizeLinear": quantize_linear, "DequantizeLinear": dequantize_linear}
REFUSALS = {"QuantizeLinear": _refusal, "DequantizeLinear": _refusal}
