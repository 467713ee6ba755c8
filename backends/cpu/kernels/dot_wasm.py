"""Products of bytes in WebAssembly.

SIMD128 multiplies pairs of 16 bits and adds them exactly in 32 (`i32x4.dot_i16x8_s`), so bytes are widened, as on x86
without VNNI. Relaxed SIMD has products of bytes, `i32x4.relaxed_dot_i8x16_i7x16_add_s(a, b, c)`, which hosts compute
alike only where b is 0 … 127. So b are weights of 7 bits moved up by 64, and a are pixels moved down by 128:

    Σ x · w = Σ (x − 128) · (w + 64) − Σ (x − 128) · 64 + 128 Σ w

The second sum is the same for all outputs of a row of blocks (`extra`), the third is in the bias. Sums of two products
lie between −32512 and 32258: no host saturates them in 16 bits.
"""

from __future__ import annotations

from typing import Any

from tvm.tirx.script.builder import ir as T

from prunec.backends.cpu.kernels.dot import Dot, even_and_odd

_TOP_BITS = 0x80808080
_MOVED = 0x40404040
"""Four times 64."""


class WasmDot(Dot):
    """Of words of 8 bits each (relaxed), or of two words of 16."""

    @property
    def extra(self) -> int:
        return 1 if self.words == 1 else 0

    def widened(self, vector: Any) -> tuple[Any, ...]:
        if self.words == 2:
            return even_and_odd(vector, self.bytes)
        bits = T.reinterpret(f"int32x{self.lanes}", vector)
        return (T.bind(T.bitwise_xor(bits, _every(_TOP_BITS, self.lanes))),)

    def add(self, sums: Any, pixels: tuple[Any, ...], weights: tuple[Any, ...], channel: int | None = None) -> Any:
        typed = f"int32x{self.lanes}"
        if self.words == 1:
            pair = (T.reinterpret(f"int8x{self.bytes}", each) for each in (pixels[0], weights[0]))
            name = "llvm.wasm.relaxed.dot.i8x16.i7x16.add.signed"
            return T.call_llvm_pure_intrin(typed, name, *pair, sums)
        for number, (own, factor) in enumerate(zip(pixels, weights, strict=True)):
            if channel is not None and channel % 2 != number:
                continue
            halves = (T.reinterpret(f"int16x{self.bytes // 2}", each) for each in (own, factor))
            sums = sums + T.call_llvm_pure_intrin(typed, "llvm.wasm.dot", *halves)
        return sums

    def add_extra(self, sums: Any, pixels: tuple[Any, ...]) -> Any:
        return self.add(sums, pixels, (_every(_MOVED, self.lanes),))

    def total(self, sums: Any, extra: Any) -> Any:
        return sums if extra is None else T.bind(sums - extra)

    def rounded(self, values: Any) -> Any:
        return T.bind(T.Cast(f"int32x{self.lanes}", T.nearbyint(values)))

    def fused(self, value: Any, factor: Any, addend: Any) -> Any:
        """In float64, where the product is exact. Its sum is rounded twice, which shows in one of 2²⁹."""
        parts = []
        for first in (0, 2):
            wide = [
                T.Cast("float64x2", T.Shuffle([each], [first, first + 1])) for each in (value, factor, addend)
            ]  # fmt: skip
            parts.append(T.bind(T.Cast("float32x2", wide[0] * wide[1] + wide[2])))
        return T.bind(T.Shuffle(parts, list(range(self.lanes))))

    def narrowed(self, first: Any, second: Any) -> Any:
        return T.call_llvm_pure_intrin("int16x8", "llvm.wasm.narrow.signed", first, second)

    def saturated(self, first: Any, second: Any) -> list[Any]:
        return [T.bind(T.call_llvm_pure_intrin("int8x16", "llvm.wasm.narrow.unsigned", first, second))]


def _every(bits: int, lanes: int) -> Any:
    """A pattern of 32 bits in every lane."""
    return T.Broadcast(T.int32(bits - 2**32 if bits >= 2**31 else bits), lanes)
