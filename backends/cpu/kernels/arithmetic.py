"""Expressions as TensorIR, with the functions that LLVM would call a library for as vector code of our own.

exp and the rational forms of erf and tanh are those of Cephes and Eigen; largest errors, measured by the tests: exp
2e-7 relative, erf and tanh 4e-7 absolute.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from tvm.tirx.script.builder import ir as T

from prunec.backends.cpu.expression import Expression
from prunec.backends.cpu.kernels.base import held_here, load, splat, store


def emit(expression: Expression, inputs: Sequence[Any], lanes: int) -> Any:
    """The value of `expression` in `lanes` lanes; `inputs` are the values of its inputs."""
    known: dict[int, Any] = {}

    def visit(node: Expression) -> Any:
        if id(node) not in known:
            known[id(node)] = _value(node, visit, inputs, lanes)
        return known[id(node)]

    return visit(expression)


def _value(node: Expression, visit: Callable[[Expression], Any], inputs: Sequence[Any], lanes: int) -> Any:
    if node.op == "input":
        return inputs[node.index]
    if node.op == "const":
        return splat(node.value, lanes, node.dtype)
    args = [visit(arg) for arg in node.args]
    if node.op == "cast":
        value = _cast(args[0], node.args[0].dtype, node.dtype, lanes)
    elif node.op == "byte":
        value = _byte(args[0], lanes)
    elif node.op == "where":
        value = T.Select(_condition(node.args[0], args[0], visit, lanes), args[1], args[2])
    else:
        value = _OPERATIONS[node.op](*args, lanes=lanes, dtype=node.args[0].dtype)
    # TVM 0.27 asks for the range of every integer that is given a name, and has no answer for vectors of bools.
    return T.bind(value) if node.dtype == "float32" or lanes == 1 else value


def _condition(node: Expression, value: Any, visit: Callable[[Expression], Any], lanes: int) -> Any:
    """Bools instead of bytes; a comparison gives them itself."""
    if node.op in _COMPARISONS:
        return _COMPARISONS[node.op](*(visit(arg) for arg in node.args))
    return value != splat(0, lanes, "uint8")


def _typed(dtype: str, lanes: int) -> str:
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def _cast(x: Any, before: str, after: str, lanes: int) -> Any:
    if after == "uint8" and before == "float32":
        return _as_byte(x != splat(0, lanes, before), lanes)
    return T.Cast(_typed(after, lanes), x)


def _byte(x: Any, lanes: int) -> Any:
    """A whole number clipped to 0 … 255."""
    whole = T.Cast(_typed("int32", lanes), clamp(x, 0.0, 255.0, lanes))
    return T.Cast(_typed("uint8", lanes), whole)


def _as_byte(truth: Any, lanes: int) -> Any:
    return T.Cast(_typed("uint8", lanes), truth)


def maximum(x: Any, y: Any) -> Any:
    """Of two numbers the larger, and NaN where `x` is: `T.max` would make a 0 of the ReLU of one. One instruction."""
    return T.Select(x < y, y, x)


def minimum(x: Any, y: Any) -> Any:
    """As `maximum`."""
    return T.Select(y < x, y, x)


def clamp(x: Any, low: float, high: float, lanes: int) -> Any:
    """Between two numbers, or NaN.

    Through memory that ends in a register: TVM 0.27 puts named values back where they are used, and takes time that is
    exponential in the depth of choices within choices.
    """
    held = held_here(lanes, "float32")
    store(held, 0, maximum(x, splat(low, lanes)), lanes)
    store(held, 0, minimum(load(held, 0, lanes), splat(high, lanes)), lanes)
    return T.bind(load(held, 0, lanes))


def fma(x: Any, y: Any, z: Any) -> Any:
    return x * y + z


def polynomial(x: Any, coefficients: Sequence[float], lanes: int) -> Any:
    """Horner's scheme, the highest power first."""
    value = splat(coefficients[0], lanes)
    for coefficient in coefficients[1:]:
        value = fma(value, x, splat(coefficient, lanes))
    return T.bind(value)


def exp(x: Any, lanes: int) -> Any:
    """2ⁿ · exp(r) with n = round(x / ln 2) and a polynomial for r; beyond −87.3 and 88 as there (0 and 1.7e38)."""
    x = clamp(x, -87.33654, 88.0, lanes)
    n = T.bind(T.floor(fma(x, splat(1.44269504088896341, lanes), splat(0.5, lanes))))
    r = T.bind(x - n * splat(0.693359375, lanes) - n * splat(-2.12194440e-4, lanes))
    p = polynomial(
        r, (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1), lanes
    )
    value = T.bind(fma(p, r * r, r + splat(1.0, lanes)))
    exponent = T.Cast(_typed("int32", lanes), n) + splat(127, lanes, "int32")
    return T.bind(value * T.reinterpret(_typed("float32", lanes), exponent << splat(23, lanes, "int32")))


def sigmoid(x: Any, lanes: int) -> Any:
    one = splat(1.0, lanes)
    return one / (one + exp(T.bind(splat(0.0, lanes) - x), lanes))


def tanh(x: Any, lanes: int) -> Any:
    x = clamp(x, -7.90531110763549805, 7.90531110763549805, lanes)
    square = T.bind(x * x)
    over = polynomial(
        square,
        (-2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
         1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03),
        lanes,
    )  # fmt: skip
    under = polynomial(
        square, (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03), lanes
    )
    return x * over / under


def erf(x: Any, lanes: int) -> Any:
    x = clamp(x, -4.0, 4.0, lanes)
    square = T.bind(x * x)
    over = polynomial(
        square,
        (-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05,
         -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02),
        lanes,
    )  # fmt: skip
    under = polynomial(
        square,
        (-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03,
         -1.42647390514189e-02),
        lanes,
    )  # fmt: skip
    return x * over / under


def _compared(compare: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda x, y, lanes, dtype: _as_byte(compare(x, y), lanes)


def _truth(combine: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda x, y, lanes, dtype: combine(x, y)


def _sign(x: Any, lanes: int, dtype: str) -> Any:
    zero, one = splat(0, lanes, dtype), splat(1, lanes, dtype)
    return T.Select(x > zero, one, T.Select(x < zero, zero - one, zero))


_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "equal": operator.eq,
    "less": operator.lt,
    "less_equal": operator.le,
    "greater": operator.gt,
    "greater_equal": operator.ge,
}
_OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": lambda x, y, lanes, dtype: x + y,
    "sub": lambda x, y, lanes, dtype: x - y,
    "mul": lambda x, y, lanes, dtype: x * y,
    "div": lambda x, y, lanes, dtype: x / y if dtype == "float32" else T.truncdiv(x, y),
    "mod": lambda x, y, lanes, dtype: T.floormod(x, y),
    "max": lambda x, y, lanes, dtype: maximum(x, y),
    "min": lambda x, y, lanes, dtype: minimum(x, y),
    "pow": lambda x, y, lanes, dtype: T.pow(x, y),
    **{name: _compared(compare) for name, compare in _COMPARISONS.items()},
    "and": _truth(lambda x, y: x & y),
    "or": _truth(lambda x, y: x | y),
    "xor": _truth(lambda x, y: x ^ y),
    "not": lambda x, lanes, dtype: x ^ splat(1, lanes, "uint8"),
    "abs": lambda x, lanes, dtype: T.max(x, splat(0, lanes, dtype) - x),
    "neg": lambda x, lanes, dtype: splat(0, lanes, dtype) - x,
    "sign": _sign,
    "reciprocal": lambda x, lanes, dtype: splat(1.0, lanes) / x,
    "sqrt": lambda x, lanes, dtype: T.sqrt(x),
    "floor": lambda x, lanes, dtype: T.floor(x),
    "ceil": lambda x, lanes, dtype: T.ceil(x),
    "round": lambda x, lanes, dtype: T.nearbyint(x),
    "log": lambda x, lanes, dtype: T.log(x),
    "sin": lambda x, lanes, dtype: T.sin(x),
    "cos": lambda x, lanes, dtype: T.cos(x),
    "is_nan": lambda x, lanes, dtype: _as_byte(x != x, lanes),
    "is_inf": lambda x, lanes, dtype: _as_byte(T.max(x, splat(0.0, lanes) - x) == splat(float("inf"), lanes), lanes),
    "exp": lambda x, lanes, dtype: exp(x, lanes),
    "sigmoid": lambda x, lanes, dtype: sigmoid(x, lanes),
    "tanh": lambda x, lanes, dtype: tanh(x, lanes),
    "erf": lambda x, lanes, dtype: erf(x, lanes),
}
