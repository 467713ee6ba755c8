"""Products of bytes on x86: one instruction with VNNI, three without.

Without it one instruction adds the products of two neighbours in 16 bits, where it saturates, another adds two such
sums in 32. It is used where no pair of weights can saturate (`quad_weights.fits_pairs`), as none of 7 bits can. Else
bytes are widened to pairs of 16 bits, whose products are added exactly in 32.
"""

from __future__ import annotations

from typing import Any

from tvm.tirx.script.builder import ir as T

from prunec.backends.cpu.kernels.dot import Dot, even_and_odd

_WIDE = 64
"""Bytes of an AVX-512 register."""


class X86Dot(Dot):
    """See the module."""

    def widened(self, vector: Any) -> tuple[Any, ...]:
        return (vector,) if self.words == 1 else even_and_odd(vector, self.bytes)

    def add(self, sums: Any, pixels: tuple[Any, ...], weights: tuple[Any, ...], channel: int | None = None) -> Any:
        typed = f"int32x{self.lanes}"
        if self.isa.has_dot:
            name = f"llvm.x86.avx512.vpdpbusd.{8 * self.bytes}"
            return T.call_llvm_pure_intrin(
                typed, name, sums, pixels[0], T.reinterpret(f"int8x{self.bytes}", weights[0])
            )
        name = "llvm.x86.avx512.pmaddw.d.512" if self.bytes == _WIDE else "llvm.x86.avx2.pmadd.wd"
        halves = f"int16x{self.bytes // 2}"
        if self.words == 1:
            pairs = "llvm.x86.avx512.pmaddubs.w.512" if self.bytes == _WIDE else "llvm.x86.avx2.pmadd.ub.sw"
            own = (T.reinterpret(f"int8x{self.bytes}", each) for each in (pixels[0], weights[0]))
            both = T.call_llvm_pure_intrin(halves, pairs, *own)
            ones = T.Broadcast(T.int16(1), self.bytes // 2)
            return sums + T.call_llvm_pure_intrin(typed, name, both, ones)
        for number, (own, factor) in enumerate(zip(pixels, weights, strict=True)):
            if channel is not None and channel % 2 != number:
                continue
            sums = sums + T.call_llvm_pure_intrin(
                typed, name, T.reinterpret(halves, own), T.reinterpret(halves, factor)
            )
        return sums

    def rounded(self, values: Any) -> Any:
        return T.bind(T.call_llvm_pure_intrin(f"int32x{self.lanes}", "llvm.lrint", values))

    def narrowed(self, first: Any, second: Any) -> Any:
        name = "llvm.x86.avx512.packssdw.512" if self.bytes == _WIDE else "llvm.x86.avx2.packssdw"
        return T.call_llvm_pure_intrin(f"int16x{self.bytes // 2}", name, first, second)

    def saturated(self, first: Any, second: Any) -> list[Any]:
        name = "llvm.x86.avx512.packuswb.512" if self.bytes == _WIDE else "llvm.x86.avx2.packuswb"
        halves = (T.reinterpret(f"int16x{self.bytes // 2}", each) for each in (first, second))
        return [T.bind(T.call_llvm_pure_intrin(f"int8x{self.bytes}", name, *halves))]
