"""What becomes of int32 sums: bytes of the next tensor, with scale, residual, zero point and limits.

    q = clamp(rint(float32(sum) · scale[c] + (r − r_zero) · r_scale) + zero, low, high)

or, where a graph rounds the sum to a grid of its own before it adds,

    first = clamp(rint(float32(sum) · scale[c]), first_low, first_high)
    q = clamp(rint(first · first_scale + (r − r_zero) · r_scale) + zero, low, high)

The last product and the sum round once (fused), to the even number between two; then bytes saturate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm.tirx.script.builder import ir as T

from prunec.backends.cpu.kernels.base import load
from prunec.backends.cpu.kernels.dot import QUAD, Dot

ZERO, LOW, HIGH, RESIDUAL_SCALE, RESIDUAL_ZERO, FIRST_SCALE, FIRST_LOW, FIRST_HIGH, STEPS = range(9)
"""Places in the argument `steps`, and how many there are."""


class Epilogue:
    """Of one kernel while it is written; `scale` and `steps` are its buffers.

    `clamps`: limits are less than bytes hold. `rounds_first`: the second formula.
    """

    def __init__(self, dot: Dot, scale: Any, steps: Any, *, clamps: bool, rounds_first: bool = False) -> None:
        self.dot, self.scale, self.steps = dot, scale, steps
        self.clamps, self.rounds_first = clamps, rounds_first

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
        typed = f"float32x{self.dot.lanes}"
        other = T.bind((T.Cast(typed, self.dot.channel(residual, channel)) - self._step(RESIDUAL_ZERO)) * (
            self._step(RESIDUAL_SCALE)
        ))  # fmt: skip
        value, factor = T.Cast(typed, sums), load(self.scale, quad * QUAD + channel, self.dot.lanes, 0)
        if self.rounds_first:
            steps = T.bind(T.Cast(typed, self.dot.rounded(self.scaled(quad, channel, sums))))
            value, factor = self._between(steps, FIRST_LOW, FIRST_HIGH), self._step(FIRST_SCALE)
        return T.bind(T.call_llvm_pure_intrin(typed, "llvm.fma", value, factor, other))

    def _between(self, values: Any, low: int, high: int) -> Any:
        raised = T.bind(T.max(values, self._step(low)))
        return T.bind(T.min(raised, self._step(high)))

    def _step(self, at: int) -> Any:
        return load(self.steps, at, self.dot.lanes, 0)
