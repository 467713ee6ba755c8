"""Reductions over some or all axes; the axes are an input or, before opset 18, an attribute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from prunec.torch.operators.common import Ints, ints


def _reduction(name: str, function: Callable[[Any, tuple[int, ...], bool], Any], doc: str) -> Callable[..., Any]:
    """A function under its own name, so that a module that calls it can be pickled."""

    def reduce(x: Any, axes: Ints = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Any:
        over = ints(axes)
        if not over and noop_with_empty_axes:
            return x
        return function(x, tuple(over or range(x.dim())), bool(keepdims))

    reduce.__name__ = reduce.__qualname__ = name
    reduce.__doc__ = doc
    return reduce


def _prod(x: Any, axes: tuple[int, ...], keep: bool) -> Any:
    for axis in sorted((a % x.dim() for a in axes), reverse=True):
        x = torch.prod(x, axis, keep)
    return x


reduce_mean = _reduction("reduce_mean", torch.mean, "Σ x / n")
reduce_sum = _reduction("reduce_sum", torch.sum, "Σ x")
reduce_max = _reduction("reduce_max", torch.amax, "max x")
reduce_min = _reduction("reduce_min", torch.amin, "min x")
reduce_prod = _reduction("reduce_prod", _prod, "Π x")
reduce_l1 = _reduction("reduce_l1", lambda x, axes, keep: torch.sum(torch.abs(x), axes, keep), "Σ |x|")
reduce_l2 = _reduction("reduce_l2", lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep), "√Σ x²")
reduce_sum_square = _reduction("reduce_sum_square", lambda x, axes, keep: torch.sum(x * x, axes, keep), "Σ x²")
reduce_log_sum = _reduction("reduce_log_sum", lambda x, axes, keep: torch.log(torch.sum(x, axes, keep)), "ln Σ x")
reduce_log_sum_exp = _reduction("reduce_log_sum_exp", torch.logsumexp, "ln Σ eˣ")


def arg_max(x: Any, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Any:
    if select_last_index:
        return x.shape[axis] - 1 - torch.argmax(torch.flip(x, (axis,)), axis, bool(keepdims))
    return torch.argmax(x, axis, bool(keepdims))


def arg_min(x: Any, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Any:
    return arg_max(-x, axis=axis, keepdims=keepdims, select_last_index=select_last_index)


OPERATORS = {
    "ArgMax": arg_max,
    "ArgMin": arg_min,
    "ReduceL1": reduce_l1,
    "ReduceL2": reduce_l2,
    "ReduceLogSum": reduce_log_sum,
    "ReduceLogSumExp": reduce_log_sum_exp,
    "ReduceMax": reduce_max,
    "ReduceMean": reduce_mean,
    "ReduceMin": reduce_min,
    "ReduceProd": reduce_prod,
    "ReduceSum": reduce_sum,
    "ReduceSumSquare": reduce_sum_square,
}
