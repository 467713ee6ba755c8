"""Elementwise operators: one tensor in, or several that broadcast against each other."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.nn import functional

from prunec.torch.operators.common import Buffer, torch_type


def div(a: Any, b: Any) -> Any:
    """Integers are divided towards zero."""
    return torch.div(a, b) if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def pow_(base: Any, exponent: Buffer) -> Any:
    """The result has the type of the base."""
    return torch.pow(base, exponent).to(base.dtype)


def mod(a: Any, b: Any, *, fmod: int = 0) -> Any:
    return torch.fmod(a, b) if fmod else torch.remainder(a, b)


def clip(x: Any, low: Buffer = None, high: Buffer = None) -> Any:
    if low is None and high is None:
        return x
    return torch.clamp(x, low, high)


def leaky_relu(x: Any, *, alpha: float = 0.01) -> Any:
    return functional.leaky_relu(x, alpha)


def elu(x: Any, *, alpha: float = 1.0) -> Any:
    return functional.elu(x, alpha)


def celu(x: Any, *, alpha: float = 1.0) -> Any:
    return functional.celu(x, alpha)


def selu(x: Any, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875) -> Any:
    return gamma * functional.elu(x, alpha)


def hard_sigmoid(x: Any, *, alpha: float = 0.2, beta: float = 0.5) -> Any:
    return torch.clamp(alpha * x + beta, 0, 1)


def thresholded_relu(x: Any, *, alpha: float = 1.0) -> Any:
    return torch.where(x > alpha, x, torch.zeros_like(x))


def shrink(x: Any, *, bias: float = 0.0, lambd: float = 0.5) -> Any:
    zero = torch.zeros_like(x)
    return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, zero))


def gelu(x: Any, *, approximate: str = "none") -> Any:
    return functional.gelu(x, approximate=approximate)


def swish(x: Any, *, alpha: float = 1.0) -> Any:
    return x * torch.sigmoid(alpha * x)


def prelu(x: Any, slope: Any) -> Any:
    """`slope` broadcasts as in ONNX, from the right."""
    return torch.where(x < 0, x * slope, x)


def quick_gelu(x: Any, *, alpha: float = 1.702) -> Any:
    return x * torch.sigmoid(alpha * x)


def bias_gelu(x: Any, bias: Any) -> Any:
    return functional.gelu(x + bias)


def fast_gelu(x: Any, bias: Any = None) -> Any:
    return functional.gelu(x if bias is None else x + bias, approximate="tanh")


def cast(x: Any, *, to: int, saturate: int = 1, round_mode: str = "up") -> Any:
    return x.to(torch_type(to))


def cast_like(x: Any, like: Any, *, saturate: int = 1, round_mode: str = "up") -> Any:
    return x.to(like.dtype)


def identity(x: Any) -> Any:
    return x


def dropout(x: Any, ratio: Buffer = None, training_mode: Any = None, *, seed: int = 0) -> Any:
    """As at inference, where it is the identity; train-time dropout is the training loop's choice."""
    return x


def is_inf(x: Any, *, detect_negative: int = 1, detect_positive: int = 1) -> Any:
    found = torch.zeros_like(x, dtype=torch.bool)
    if detect_positive:
        found = found | (x == float("inf"))
    if detect_negative:
        found = found | (x == float("-inf"))
    return found


def maximum(*tensors: Any) -> Any:
    return functools.reduce(torch.maximum, tensors)


def minimum(*tensors: Any) -> Any:
    return functools.reduce(torch.minimum, tensors)


def sum_(*tensors: Any) -> Any:
    return functools.reduce(torch.add, tensors)


def mean(*tensors: Any) -> Any:
    return functools.reduce(torch.add, tensors) / len(tensors)


_UNARY = """Abs Acos Acosh Asin Asinh Atan Atanh Ceil Cos Cosh Erf Exp Floor Log Neg Reciprocal Relu Round Sigmoid Sign
Sin Sinh Sqrt Tan Tanh"""

OPERATORS = {
    **{name: getattr(torch, name.lower()) for name in _UNARY.split()},
    "Add": torch.add,
    "And": torch.logical_and,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseNot": torch.bitwise_not,
    "BitwiseOr": torch.bitwise_or,
    "Cast": cast,
    "CastLike": cast_like,
    "Celu": celu,
    "Clip": clip,
    "Div": div,
    "Dropout": dropout,
    "Elu": elu,
    "Equal": torch.eq,
    "Gelu": gelu,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": functional.hardswish,
    "Identity": identity,
    "IsInf": is_inf,
    "IsNaN": torch.isnan,
    "LeakyRelu": leaky_relu,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Max": maximum,
    "Mean": mean,
    "Min": minimum,
    "Mish": functional.mish,
    "Mod": mod,
    "Mul": torch.mul,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "PRelu": prelu,
    "Pow": pow_,
    "Selu": selu,
    "Shrink": shrink,
    "Softplus": functional.softplus,
    "Softsign": functional.softsign,
    "Sub": torch.sub,
    "Sum": sum_,
    "Swish": swish,
    "ThresholdedRelu": thresholded_relu,
    "Where": torch.where,
    "Xor": torch.logical_xor,
    "com.microsoft::BiasGelu": bias_gelu,
    "com.microsoft::FastGelu": fast_gelu,
    "com.microsoft::Gelu": gelu,
    "com.microsoft::QuickGelu": quick_gelu,
}
