"""What becomes of int32 sums: bytes of the next tensor, with scale, residual, zero point and limits.

    q = clamp(rint(float32(sum) · scale[c] + (r − r_zero) · r_scale) + zero, low, high)

or, where a graph rounds the sum to a grid of its own before it adds, as ONNX Runtime's addition of bytes has it,

    first = clamp(rint(float32(sum) · scale[c]) + first_zero, first_low, first_high)
    q = clamp(rint(first · first_scale + (r · r_scale + offset)), low, high)    r outside where the graph names it first

A product and the sum behind it round once (fused), and to the even number between two; then bytes saturate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from tvm.tirx.script.builder import ir as T

from prunec.backends.cpu.kernels.base import load
from prunec.backends.cpu.kernels.dot import Dot
from prunec.backends.cpu.quads import QUAD

ZERO, LOW, HIGH, RESIDUAL_SCALE, RESIDUAL_ZERO, FIRST_SCALE, FIRST_ZERO, FIRST_LOW, FIRST_HIGH, OFFSET, STEPS = range(
    11
)
"""Places in the argument `steps`, and how many there are. With the second formula the zero point is in the offset."""

Addition = Literal["exact", "sum_first", "residual_first"]
"""The first formula, or the second one: which of the two the graph's addition names first."""


class Epilogue:
    """Of one kernel while it is written; `scale` and `steps` are its buffers.

    `clamps`: limits are less than bytes hold. `addition`: of a residual.
    """

    def __init__(self, dot: Dot, scale: Any, steps: Any, *, clamps: bool, addition: Addition = "exact") -> None:
        self.dot, self.scale, self.steps = dot, scale, steps
        self.clamps, self.addition = clamps, addition

    def begin(self) -> None:
        """Bring zero point and limits into every lane, for what follows in this scope."""
        zero = T.bind(T.Cast("int16", self.steps[ZERO]))
        self._zero = T.bind(T.Broadcast(zero, self.dot.bytes // 2))
        if self.clamps:
            limits = [T.bind(T.Cast("uint8", self.steps[at])) for at in (LOW, HIGH)]
            self._low, self._high = (T.bind(T.Broadcast(limit, self.dot.bytes)) for limit in limits)

    def scaled(self, quad: Any, channel: int, sums: Any) -> Any:
        """float32 of the sums of one channel of a quad."""
        factor = load(self.scale, quad * QUAD + channel, self.dot.lanes, 0)
        return T.bind(T.Cast(f"float32x{self.dot.lanes}", sums) * factor)

    def limited(self, values: Any) -> Any:
        """float32 between the limits."""
        return self._between(values, LOW, HIGH) if self.clamps else values

    def quads(self, quad: Any, sums: Sequence[Any], residual: Any) -> Any:
        """Bytes of a vector of pixels, from the sums of its four channels; `residual` as bytes, or None."""
        values = [
            self.scaled(quad, o, own) if residual is None else self._added(quad, o, own, residual)
            for o, own in enumerate(sums)
        ]
        found = self.dot.quads([self.dot.rounded(value) for value in values], self._zero)
        return T.bind(T.min(T.bind(T.max(found, self._low)), self._high)) if self.clamps else found

    def _added(self, quad: Any, channel: int, sums: Any, residual: Any) -> Any:
        other = T.bind(T.Cast(f"float32x{self.dot.lanes}", self.dot.channel(residual, channel)))
        if self.addition == "exact":
            other = T.bind((other - self._step(RESIDUAL_ZERO)) * self._step(RESIDUAL_SCALE))
            factor = load(self.scale, quad * QUAD + channel, self.dot.lanes, 0)
            return self.dot.fused(T.Cast(f"float32x{self.dot.lanes}", sums), factor, other)
        steps = T.Cast(f"float32x{self.dot.lanes}", self.dot.rounded(self.scaled(quad, channel, sums)))
        first = self._between(steps + self._step(FIRST_ZERO), FIRST_LOW, FIRST_HIGH)
        pairs = [(first, self._step(FIRST_SCALE)), (other, self._step(RESIDUAL_SCALE))]
        outer, inner = pairs if self.addition == "sum_first" else pairs[::-1]
        return self.dot.fused(outer[0], outer[1], self.dot.fused(inner[0], inner[1], self._step(OFFSET)))

    def _between(self, values: Any, low: int, high: int) -> Any:
        raised = T.bind(T.max(values, self._step(low)))
        return T.bind(T.min(raised, self._step(high)))

    def _step(self, at: int) -> Any:
        return load(self.steps, at, self.dot.lanes, 0)
