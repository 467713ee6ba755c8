"""Elementwise operators as expressions: one row each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from prunec.backends.cpu.expression import Expression, binary, cast, clip, const, relu, unary, where
from prunec.backends.cpu.lower.quantisers import dequantise_element, quantise_element
from prunec.backends.cpu.lower.state import Unsupported, dtype_of

Args = Sequence[Expression | None]
Rule = Callable[[ir.Node, Args], Expression]


def _float(node: ir.Node, name: str, default: float) -> float:
    return float(node.attributes.get_float(name, default))


def _one(args: Args) -> Expression:
    assert args[0] is not None
    return args[0]


def _unary(op: str) -> Rule:
    def rule(node: ir.Node, args: Args) -> Expression:
        if _one(args).dtype != "float32" and op not in ("abs", "neg", "not", "sign"):
            raise Unsupported(f"{node.op_type} of {_one(args).dtype}")
        return unary(op, _one(args))

    return rule


def _binary(op: str) -> Rule:
    def rule(node: ir.Node, args: Args) -> Expression:
        x, y = args[0], args[1]
        assert x is not None and y is not None
        return binary(op, x, y)

    return rule


def _variadic(op: str) -> Rule:
    def rule(node: ir.Node, args: Args) -> Expression:
        value = _one(args)
        for arg in args[1:]:
            assert arg is not None
            value = binary(op, value, arg)
        return value

    return rule


def _mean(node: ir.Node, args: Args) -> Expression:
    return binary("mul", _variadic("add")(node, args), const(1 / len(args)))


def _clip(node: ir.Node, args: Args) -> Expression:
    value = _one(args)
    low = args[1] if len(args) > 1 else None
    high = args[2] if len(args) > 2 else None
    value = value if low is None else binary("max", value, low)
    return value if high is None else binary("min", value, high)


def _leaky_relu(node: ir.Node, args: Args) -> Expression:
    x = _one(args)
    slope = const(_float(node, "alpha", 0.01))
    return where(binary("less", x, const(0.0)), binary("mul", x, slope), x)


def _prelu(node: ir.Node, args: Args) -> Expression:
    x, slope = _one(args), args[1]
    assert slope is not None
    return where(binary("less", x, const(0.0)), binary("mul", x, slope), x)


def _elu(node: ir.Node, args: Args) -> Expression:
    x, scale = _one(args), const(_float(node, "alpha", 1.0))
    below = binary("mul", scale, binary("sub", unary("exp", binary("min", x, const(0.0))), const(1.0)))
    return where(binary("less", x, const(0.0)), below, x)


def _hard_sigmoid(node: ir.Node, args: Args) -> Expression:
    slope, shift = _float(node, "alpha", 0.2), _float(node, "beta", 0.5)
    return clip(binary("add", binary("mul", _one(args), const(slope)), const(shift)), 0.0, 1.0)


def _hard_swish(node: ir.Node, args: Args) -> Expression:
    x = _one(args)
    gate = clip(binary("add", binary("mul", x, const(1 / 6)), const(0.5)), 0.0, 1.0)
    return binary("mul", x, gate)


def _swish(node: ir.Node, args: Args) -> Expression:
    x = _one(args)
    return binary("mul", x, unary("sigmoid", binary("mul", x, const(_float(node, "alpha", 1.0)))))


def _softplus(node: ir.Node, args: Args) -> Expression:
    """log(1 + eˣ) = max(x, 0) + log(1 + e^−|x|)."""
    x = _one(args)
    small = unary("exp", unary("neg", unary("abs", x)))
    return binary("add", relu(x), unary("log", binary("add", small, const(1.0))))


def _gelu(node: ir.Node, args: Args) -> Expression:
    x = _one(args)
    half = binary("mul", x, const(0.5))
    approximate = node.attributes.get_string("approximate", "none")
    if approximate == "tanh":
        cubic = binary("add", x, binary("mul", const(0.044715), binary("mul", x, binary("mul", x, x))))
        inner = unary("tanh", binary("mul", cubic, const(0.7978845608028654)))
    else:
        inner = unary("erf", binary("mul", x, const(0.7071067811865476)))
    return binary("mul", half, binary("add", inner, const(1.0)))


def _softsign(node: ir.Node, args: Args) -> Expression:
    return binary("div", _one(args), binary("add", unary("abs", _one(args)), const(1.0)))


def _pow(node: ir.Node, args: Args) -> Expression:
    x, power = _one(args), args[1]
    assert power is not None
    if x.dtype != "float32":
        raise Unsupported(f"a power of {x.dtype}")
    if power.op == "const" and power.value in (1, 2, 3):
        value = x
        for _ in range(int(power.value) - 1):
            value = binary("mul", value, x)
        return value
    if power.op == "const" and power.value == 0.5:
        return unary("sqrt", x)
    return binary("pow", x, cast(power, "float32"))


def _cast(node: ir.Node, args: Args) -> Expression:
    return cast(_one(args), dtype_of(node.outputs[0]))


def _where(node: ir.Node, args: Args) -> Expression:
    condition, x, y = args
    assert condition is not None and x is not None and y is not None
    return where(condition, x, y)


ELEMENTWISE: dict[str, Rule] = {
    **{name: _unary(op) for name, op in (
        ("Abs", "abs"), ("Neg", "neg"), ("Exp", "exp"), ("Log", "log"), ("Sqrt", "sqrt"), ("Erf", "erf"),
        ("Tanh", "tanh"), ("Sigmoid", "sigmoid"), ("Floor", "floor"), ("Ceil", "ceil"), ("Round", "round"),
        ("Sin", "sin"), ("Cos", "cos"), ("Not", "not"), ("Reciprocal", "reciprocal"), ("Sign", "sign"),
        ("IsNaN", "is_nan"), ("IsInf", "is_inf"),
    )},
    **{name: _binary(op) for name, op in (
        ("Sub", "sub"), ("Div", "div"), ("Equal", "equal"), ("Less", "less"),
        ("LessOrEqual", "less_equal"), ("Greater", "greater"), ("GreaterOrEqual", "greater_equal"), ("And", "and"),
        ("Or", "or"), ("Xor", "xor"),
    )},
    **{name: _variadic(op) for name, op in (
        ("Add", "add"), ("Mul", "mul"), ("Max", "max"), ("Min", "min"), ("Sum", "add"),
    )},
    "Relu": lambda node, args: relu(_one(args)) if _one(args).dtype == "float32" else _relu_refused(node),
    "Clip": _clip, "LeakyRelu": _leaky_relu, "PRelu": _prelu, "Elu": _elu, "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish, "Swish": _swish, "Softplus": _softplus, "Gelu": _gelu, "Softsign": _softsign,
    "Pow": _pow, "Cast": _cast, "Where": _where, "Mean": _mean, "QuantizeLinear": quantise_element,
    "DequantizeLinear": dequantise_element,
}  # fmt: skip


def _relu_refused(node: ir.Node) -> Expression:
    raise Unsupported("Relu of integers")
