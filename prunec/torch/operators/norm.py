"""Normalisations and softmax."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch
from torch.nn import functional

from prunec.graph.rules.base import attribute
from prunec.torch.operators.common import Buffer


def batch_norm(
    x: Any,
    scale: Any,
    bias: Any,
    mean: Buffer,
    variance: Buffer,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Any:
    """With the stored statistics, in training too: the batches of a recovery need not be large."""
    return functional.batch_norm(x, mean, variance, scale, bias, False, 1 - momentum, epsilon)


def layer_norm(
    x: Any, scale: Any, bias: Any = None, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Any:
    return functional.layer_norm(x, x.shape[axis % x.dim() :], scale, bias, epsilon)


def rms_norm(x: Any, scale: Any, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Any:
    axes = tuple(range(axis % x.dim(), x.dim()))
    return x * torch.rsqrt(torch.mean(x * x, axes, keepdim=True) + epsilon) * scale


def instance_norm(x: Any, scale: Any, bias: Any, *, epsilon: float = 1e-5) -> Any:
    return functional.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


def group_norm(x: Any, scale: Any, bias: Any, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1) -> Any:
    """Before opset 21 there is one scale per group."""
    if scale.shape[0] != x.shape[1]:
        scale, bias = (v.repeat_interleave(x.shape[1] // num_groups) for v in (scale, bias))
    return functional.group_norm(x, num_groups, scale, bias, epsilon)


def lp_norm(x: Any, *, axis: int = -1, p: int = 2) -> Any:
    norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / norm)


def lrn(x: Any, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Any:
    return functional.local_response_norm(x, size, alpha, beta, bias)


def softmax(x: Any, *, axis: int = -1) -> Any:
    return torch.softmax(x, axis)


def log_softmax(x: Any, *, axis: int = -1) -> Any:
    return torch.log_softmax(x, axis)


def _more_outputs(node: ir.Node) -> str | None:
    used = [output for output in node.outputs[1:] if output.uses() or output.is_graph_output()]
    return "its statistics are outputs" if used else None


def _training(node: ir.Node) -> str | None:
    return "training mode" if attribute(node, "training_mode", 0) else _more_outputs(node)


OPERATORS = {
    "BatchNormalization": batch_norm,
    "GroupNormalization": group_norm,
    "InstanceNormalization": instance_norm,
    "LRN": lrn,
    "LayerNormalization": layer_norm,
    "LogSoftmax": log_softmax,
    "LpNormalization": lp_norm,
    "RMSNormalization": rms_norm,
    "SimplifiedLayerNormalization": rms_norm,
    "Softmax": softmax,
}
REFUSALS = {
    "BatchNormalization": _training,
    "LayerNormalization": _more_outputs,
    "SimplifiedLayerNormalization": _more_outputs,
}
