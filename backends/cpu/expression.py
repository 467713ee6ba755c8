"""Elementwise expressions: what a fused chain of operators computes from its inputs, element by element.

A value: hashable, so that two layers with the same epilogue share one kernel. Bools are uint8 with 0 and 1; what 8 bits
stand for is uint8 as well, made by `quantised` and read by `dequantised`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_LARGEST = 3.4028234663852886e38
UNARY = frozenset(
    "abs neg exp log sqrt erf tanh sigmoid floor ceil round sin cos not reciprocal sign is_nan is_inf".split()
)
BINARY = frozenset("add sub mul div max min pow mod equal less less_equal greater greater_equal and or xor".split())
BOOLEAN = frozenset("equal less less_equal greater greater_equal and or xor not is_nan is_inf".split())


@dataclass(frozen=True)
class Expression:
    """`op` is "input" (number `index`), "const" (`value`), "where", "cast", "byte" or a name of `UNARY` or `BINARY`."""

    op: str
    dtype: str
    args: tuple[Expression, ...] = ()
    index: int = 0
    value: float | int = 0

    def inputs(self) -> frozenset[int]:
        """Numbers of the inputs that it reads."""
        own = {self.index} if self.op == "input" else set()
        return frozenset(own).union(*(arg.inputs() for arg in self.args))

    def dtypes(self) -> frozenset[str]:
        """Types of all values in it."""
        return frozenset([self.dtype]).union(*(arg.dtypes() for arg in self.args))

    def substitute(self, replacements: dict[int, Expression]) -> Expression:
        """The same with inputs replaced by expressions."""
        if self.op == "input":
            return replacements.get(self.index, self)
        args = tuple(arg.substitute(replacements) for arg in self.args)
        return Expression(self.op, self.dtype, args, self.index, self.value)


def operand(index: int, dtype: str = "float32") -> Expression:
    return Expression("input", dtype, index=index)


def const(value: float | int, dtype: str = "float32") -> Expression:
    return Expression("const", dtype, value=value)


def unary(op: str, x: Expression) -> Expression:
    assert op in UNARY, op
    return Expression(op, "uint8" if op in BOOLEAN else x.dtype, (x,))


def binary(op: str, x: Expression, y: Expression) -> Expression:
    """The compiler takes x − x, 0 · x and 0 / x for 0, which they are not where x is infinite, no number, or 0."""
    assert op in BINARY and x.dtype == y.dtype, (op, x.dtype, y.dtype)
    zeros = [value.op == "const" and value.value == 0 and value.dtype == "float32" for value in (x, y)]
    if op == "sub" and x == y and x.dtype == "float32" and x.op != "const":
        return _zero_where(binary("less_equal", unary("abs", x), const(_LARGEST)))
    if op == "mul" and zeros[0] != zeros[1]:
        return _zero_where(binary("less_equal", unary("abs", y if zeros[0] else x), const(_LARGEST)))
    if op == "div" and zeros[0] and not zeros[1]:
        return _zero_where(binary("greater", unary("abs", y), const(0.0)))
    return Expression(op, "uint8" if op in BOOLEAN else x.dtype, (x, y))


def _zero_where(condition: Expression) -> Expression:
    return where(condition, const(0.0), const(math.nan))


def where(condition: Expression, x: Expression, y: Expression) -> Expression:
    assert x.dtype == y.dtype
    return Expression("where", x.dtype, (condition, x, y))


def cast(x: Expression, dtype: str) -> Expression:
    return x if x.dtype == dtype else Expression("cast", dtype, (x,))


def quantised(x: Expression, scale: float, zero: int) -> Expression:
    """The byte that stands for float32 `x`, as QuantizeLinear rounds: half to even, then moved and clipped."""
    steps = unary("round", binary("div", x, const(scale)))
    return Expression("byte", "uint8", (binary("add", steps, const(float(zero))) if zero else steps,))


def dequantised(q: Expression, scale: float, zero: int) -> Expression:
    """What the byte `q` stands for."""
    number = cast(q, "float32")
    return binary("mul", binary("sub", number, const(float(zero))) if zero else number, const(scale))


def relu(x: Expression) -> Expression:
    return binary("max", x, const(0.0))


def clip(x: Expression, low: float, high: float) -> Expression:
    return binary("min", binary("max", x, const(low)), const(high))
