"""Products of four bytes each, added to 32-bit sums, and what becomes of such sums: bytes again.

Vectors hold the four channels of a quad for every pixel. How an instruction set does it is a class of its own
(`dot_x86.py`, `dot_wasm.py`, `dot_arm64.py`); all of them give the same integers, exactly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from tvm.tirx.script.builder import ir as T

from prunec.backends.cpu.isa import Int8, Isa
from prunec.backends.cpu.kernels.base import load, splat
from prunec.backends.cpu.quads import QUAD

_CLASSES: dict[Int8, str] = {"x86": "dot_x86:X86Dot", "wasm": "dot_wasm:WasmDot", "arm64": "dot_arm64:Arm64Dot"}


@dataclass(frozen=True)
class Dot(ABC):
    """How an instruction set does it; `lanes` pixels in a vector of `lanes` · 4 bytes.

    `words`: int32 numbers that hold the four weights of one output (`quad_weights.packed_words`).
    """

    isa: Isa
    words: int

    @property
    def lanes(self) -> int:
        return self.isa.lanes("int32")

    @property
    def bytes(self) -> int:
        return self.isa.vector_bytes

    @property
    def extra(self) -> int:
        """Sums beside those of the four outputs that a vector of pixels needs (`add_extra`, `total`): 0 or 1."""
        return 0

    def add_extra(self, sums: Any, pixels: tuple[Any, ...]) -> Any:
        """The extra sum with the pixels of one block."""
        raise AssertionError("there is none")

    def total(self, sums: Any, extra: Any) -> Any:
        """The sum of one output, all blocks being added. `extra`: None where there is no such sum."""
        return sums

    def pixels(self, buffer: Any, position: Any) -> tuple[Any, ...]:
        """One vector of pixels from a uint8 buffer, as `add` wants it."""
        return self.widened(T.bind(load(buffer, position, self.bytes)))

    @abstractmethod
    def widened(self, vector: Any) -> tuple[Any, ...]:
        """Bytes as `add` wants them."""

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
        return self.widened(T.bind(T.reinterpret(f"uint8x{self.bytes}", T.bind(chosen))))

    def block(self, buffer: Any, position: Any) -> list[tuple[Any, ...]]:
        """The weights of the four outputs of a block, from its first word on, each for every pixel."""
        return [self.weights(buffer, position + o * self.words) for o in range(QUAD)]

    def weights(self, buffer: Any, position: Any) -> tuple[Any, ...]:
        """The weights of one output, from its first word on, for every pixel."""
        return tuple(T.bind(T.Broadcast(buffer[position + word], self.lanes)) for word in range(self.words))

    @abstractmethod
    def add(self, sums: Any, pixels: tuple[Any, ...], weights: tuple[Any, ...], channel: int | None = None) -> Any:
        """sums + the four products of each pixel. `channel`: the only one whose weight is not zero, if there is one."""

    @abstractmethod
    def rounded(self, values: Any) -> Any:
        """float32 to the nearest int32, to the even one between two."""

    def fused(self, value: Any, factor: Any, addend: Any) -> Any:
        """value · factor + addend in float32, rounded once."""
        return T.bind(T.call_llvm_pure_intrin(f"float32x{self.lanes}", "llvm.fma", value, factor, addend))

    def quads(self, channels: Sequence[Any], zero: Any) -> Any:
        """Bytes of four int32 vectors, one for each channel, plus `zero` (int16 in every lane), saturated."""
        halves = f"int16x{self.bytes // 2}"
        pairs = []
        for first in (0, 2):
            both = self.narrowed(channels[first], channels[first + 1])
            pairs.append(T.bind(T.call_llvm_pure_intrin(halves, "llvm.sadd.sat", both, zero)))
        # Packing leaves, in every 16 bytes, four pixels of one channel beside each other.
        order = [16 * (at // 16) + at % QUAD * QUAD + at % 16 // QUAD for at in range(self.bytes)]
        mixed = T.Shuffle(self.saturated(*pairs), order)
        return T.bind(T.reinterpret(f"uint8x{self.bytes}", mixed))

    @abstractmethod
    def narrowed(self, first: Any, second: Any) -> Any:
        """int16 of two int32 vectors, saturated: four lanes of the first, four of the second, and so on."""

    @abstractmethod
    def saturated(self, first: Any, second: Any) -> list[Any]:
        """uint8 of two int16 vectors, as int8, in one vector or two: eight lanes of each in turn."""

    def channel(self, quads: Any, number: int) -> Any:
        """int32 of one channel of a vector of quads."""
        words = T.reinterpret(f"int32x{self.lanes}", quads)
        shifted = T.shift_right(words, splat(8 * number, self.lanes, "int32")) if number else words
        return T.bind(T.bitwise_and(shifted, splat(255, self.lanes, "int32")))


def dot_for(isa: Isa, words: int = 1) -> Dot:
    """What int8 kernels of an instruction set are made of; `words` as the layer's weights are packed."""
    assert isa.int8 is not None, isa.name
    module, _, name = _CLASSES[isa.int8].partition(":")
    made: Dot = getattr(import_module(f"prunec.backends.cpu.kernels.{module}"), name)(isa, words)
    return made


def even_and_odd(vector: Any, size: int) -> tuple[Any, Any]:
    """uint8 [size] as two vectors of 16 bits: channels 0 and 2 of every quad, and 1 and 3."""
    pairs = T.bind(T.reinterpret(f"uint16x{size // 2}", vector))
    return (
        T.bind(T.bitwise_and(pairs, T.Broadcast(T.uint16(255), size // 2))),
        T.bind(T.shift_right(pairs, T.Broadcast(T.uint16(8), size // 2))),
    )
