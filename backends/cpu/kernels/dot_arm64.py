"""Products of bytes on 64-bit ARM: `sdot` of Armv8.2-A adds four of them, both signed.

So pixels are moved down by 128, and 128 Σ w is in the bias. The weights of a block are one vector, of which the
instruction takes the word of an output.
"""

from __future__ import annotations

from typing import Any

from tvm.tirx.script.builder import ir as T

from prunec.backends.cpu.kernels.base import load
from prunec.backends.cpu.kernels.dot import Dot
from prunec.backends.cpu.quads import QUAD


class Arm64Dot(Dot):
    """See the module."""

    def widened(self, vector: Any) -> tuple[Any, ...]:
        return (T.bind(T.bitwise_xor(vector, T.Broadcast(T.uint8(128), self.bytes))),)

    def block(self, buffer: Any, position: Any) -> list[tuple[Any, ...]]:
        words = T.bind(load(buffer, position, QUAD))
        return [(T.bind(T.Shuffle([words], [o] * self.lanes)),) for o in range(QUAD)]

    def add(self, sums: Any, pixels: tuple[Any, ...], weights: tuple[Any, ...], channel: int | None = None) -> Any:
        pair = (T.reinterpret(f"int8x{self.bytes}", each) for each in (pixels[0], weights[0]))
        return T.call_llvm_pure_intrin(f"int32x{self.lanes}", "llvm.aarch64.neon.sdot", sums, *pair)

    def rounded(self, values: Any) -> Any:
        return T.bind(T.call_llvm_pure_intrin(f"int32x{self.lanes}", "llvm.aarch64.neon.fcvtns", values))

    def narrowed(self, first: Any, second: Any) -> Any:
        name = "llvm.aarch64.neon.sqxtn"
        parts = [T.bind(T.call_llvm_pure_intrin("int16x4", name, each)) for each in (first, second)]
        return T.bind(T.Shuffle(parts, list(range(8))))

    def saturated(self, first: Any, second: Any) -> list[Any]:
        name = "llvm.aarch64.neon.sqxtun"
        return [T.bind(T.call_llvm_pure_intrin("int8x8", name, each)) for each in (first, second)]
