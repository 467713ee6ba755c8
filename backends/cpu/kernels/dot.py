"""Products of four bytes each, added to 32-bit sums, and what becomes of such sums: bytes again.

Vectors hold the four channels of a quad for every pixel. With VNNI one instruction multiplies all of them and adds.
Without it bytes are widened to pairs of 16 bits, whose products are added exactly in 32: the instruction that takes
bytes would add them in 16 bits and saturate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm.tirx.script.builder import ir as T

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.base import load, splat

QUAD = 4
_WIDE = 64
"""Bytes of an AVX-512 register."""


@dataclass(frozen=True)
class Dot:
    """How an instruction set does it; `lanes` pixels in a vector of `lanes` · 4 bytes."""

    isa: Isa

    @property
    def lanes(self) -> int:
        return self.isa.lanes("int32")

    @property
    def bytes(self) -> int:
        return self.isa.vector_bytes

    @property
    def words(self) -> int:
        """int32 numbers that hold the four weights of one output (`quad_weights.packed_words`)."""
        return 1 if self.isa.has_dot else 2

    def pixels(self, buffer: Any, position: Any) -> tuple[Any, ...]:
        """One vector of pixels from a uint8 buffer, as `add` wants it."""
        return self._widened(T.bind(load(buffer, position, self.bytes)))

    def _widened(self, vector: Any) -> tuple[Any, ...]:
        if self.isa.has_dot:
            return (vector,)
        halves = f"uint16x{self.bytes // 2}"
        pairs = T.bind(T.reinterpret(halves, vector))
        return (
            T.bind(T.bitwise_and(pairs, T.Broadcast(T.uint16(255), self.bytes // 2))),
            T.bind(T.shift_right(pairs, T.Broadcast(T.uint16(8), self.bytes // 2))),
        )

    def strided_pixels(self, buffer: Any, position: Any, step: int) -> tuple[Any, ...]:
        """Every `step`-th pixel from `position` on. Reads `step` vectors where that is 1 or 2."""
        if step == 1:
            return self.pixels(buffer, position)
        typed = f"int32x{self.lanes}"
        if step == 2:
            parts = [T.bind(load(buffer, position + n * self.bytes, self.bytes)) for n in (0, 1)]
            words = [T.bind(T.reinterpret(typed, part)) for part in parts]
            chosen = T.Shuffle(words, list(range(0, 2 * self.lanes, 2)))
        else:
            singles = [T.bind(load(buffer, position + i * step * QUAD, QUAD)) for i in range(self.lanes)]
            chosen = T.Shuffle([T.bind(T.reinterpret("int32", one)) for one in singles], list(range(self.lanes)))
        return self._widened(T.bind(T.reinterpret(f"uint8x{self.bytes}", T.bind(chosen))))

    def weights(self, buffer: Any, position: Any) -> tuple[Any, ...]:
        """The weights of one output, from its first word on, for every pixel."""
        return tuple(T.bind(T.Broadcast(buffer[position + word], self.lanes)) for word in range(self.words))

    def add(self, sums: Any, pixels: tuple[Any, ...], weights: tuple[Any, ...], channel: int | None = None) -> Any:
        """sums + the four products of each pixel. `channel`: the only one whose weight is not zero, if there is one."""
        typed = f"int32x{self.lanes}"
        if self.isa.has_dot:
            name = f"llvm.x86.avx512.vpdpbusd.{8 * self.bytes}"
            return T.call_llvm_pure_intrin(
                typed, name, sums, pixels[0], T.reinterpret(f"int8x{self.bytes}", weights[0])
            )
        name = "llvm.x86.avx512.pmaddw.d.512" if self.bytes == _WIDE else "llvm.x86.avx2.pmadd.wd"
        halves = f"int16x{self.bytes // 2}"
        for number, (own, factor) in enumerate(zip(pixels, weights, strict=True)):
            if channel is not None and channel % 2 != number:
                continue
            sums = sums + T.call_llvm_pure_intrin(
                typed, name, T.reinterpret(halves, own), T.reinterpret(halves, factor)
            )
        return sums

    def rounded(self, values: Any) -> Any:
        """float32 to the nearest int32, to the even one between two."""
        return T.bind(T.call_llvm_pure_intrin(f"int32x{self.lanes}", "llvm.lrint", values))

    def quads(self, channels: Sequence[Any], zero: Any) -> Any:
        """Bytes of four int32 vectors, one for each channel, plus `zero` (int16 in every lane), saturated."""
        narrow, packed, tail = ("avx512", "packssdw.512", "packuswb.512") if self.bytes == _WIDE else (
            "avx2", "packssdw", "packuswb"
        )  # fmt: skip
        halves = f"int16x{self.bytes // 2}"
        pairs = []
        for first in (0, 2):
            both = T.call_llvm_pure_intrin(halves, f"llvm.x86.{narrow}.{packed}", channels[first], channels[first + 1])
            pairs.append(T.bind(T.call_llvm_pure_intrin(halves, "llvm.sadd.sat", both, zero)))
        mixed = T.bind(
            T.call_llvm_pure_intrin(
                f"int8x{self.bytes}", f"llvm.x86.{narrow}.{tail}", *(T.reinterpret(halves, pair) for pair in pairs)
            )
        )
        # Packing leaves, in every 16 bytes, four pixels of one channel beside each other.
        order = [16 * (at // 16) + at % QUAD * QUAD + at % 16 // QUAD for at in range(self.bytes)]
        return T.bind(T.reinterpret(f"uint8x{self.bytes}", T.Shuffle([mixed], order)))

    def channel(self, quads: Any, number: int) -> Any:
        """int32 of one channel of a vector of quads."""
        words = T.reinterpret(f"int32x{self.lanes}", quads)
        shifted = T.shift_right(words, splat(8 * number, self.lanes, "int32")) if number else words
        return T.bind(T.bitwise_and(shifted, splat(255, self.lanes, "int32")))
