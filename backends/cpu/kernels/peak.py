"""Multiply-adds and nothing else: what the processor can do at most, in registers or with a load for some of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tvm.tirx.script.builder import ir as T

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.base import Argument, Kernel, Sums, load, splat, store
from prunec.backends.cpu.kernels.dot import dot_for

CHAINS = 12
"""Independent sums: more than latency × units of any of our processors, fewer than registers."""
STEPS = 64
"""Places that values are loaded from, all in the first cache."""


@dataclass(frozen=True)
class Peak(Kernel):
    """`rounds` × CHAINS vector multiply-adds on one thread.

    `sharing`: so many of them use one value that is loaded from the first cache and broadcast, as products over blocks
    of so many vectors do; 0: none is loaded.
    """

    family: ClassVar[str] = "peak"

    rounds: int
    sharing: int = 0

    def arguments(self) -> tuple[Argument, ...]:
        return (Argument("x", "float32", 2 + STEPS + CHAINS), Argument("y", "float32", 64 * CHAINS))

    def flops(self, isa: Isa) -> int:
        return 2 * self.rounds * CHAINS * isa.lanes("float32")

    def emit(self, isa: Isa, x: Any, y: Any) -> None:
        lanes = isa.lanes("float32")
        factor, term = T.bind(T.Broadcast(x[0], lanes)), T.bind(T.Broadcast(x[1], lanes))
        sums = T.alloc_buffer((CHAINS * lanes,), "float32", scope="local")
        for chain in range(CHAINS):
            store(sums, chain * lanes, splat(chain / CHAINS, lanes), lanes)
        with T.serial(0, self.rounds) as number:
            for chain in range(CHAINS):
                at = chain * lanes
                if self.sharing:
                    place = 2 + number % STEPS + chain // self.sharing
                    store(sums, at, load(sums, at, lanes) + T.Broadcast(x[place], lanes) * factor, lanes)
                else:
                    store(sums, at, load(sums, at, lanes) * factor + term, lanes)
        for chain in range(CHAINS):
            store(y, chain * lanes, load(sums, chain * lanes, lanes), lanes)


@dataclass(frozen=True)
class DotPeak(Kernel):
    """`rounds` × `chains` four-way products of bytes, added to 32-bit sums.

    Where one instruction does it, in registers. Else bytes are loaded (and widened, but for x86), once for every two
    products, as a compiler would find the products themselves to be always the same.
    """

    family: ClassVar[str] = "dot_peak"

    rounds: int

    def arguments(self) -> tuple[Argument, ...]:
        return (
            Argument("x", "uint8", 64 * (STEPS + 4)),
            Argument("weights", "int32", 2 * CHAINS),
            Argument("y", "int32", 16 * CHAINS),
        )

    def chains(self, isa: Isa) -> int:
        """Independent sums."""
        return CHAINS if isa.has_dot else 4

    def words(self, isa: Isa) -> int:
        """Of the weights, for the fastest products that the instruction set has for numbers of 7 bits."""
        return 1 if isa.has_dot or isa.int8 == "x86" else 2

    def flops(self, isa: Isa) -> int:
        return 2 * 4 * self.rounds * self.chains(isa) * isa.lanes("int32")

    def emit(self, isa: Isa, x: Any, weights: Any, y: Any) -> None:
        dot = dot_for(isa, self.words(isa))
        sums = Sums(self.chains(isa), dot.lanes, "int32")
        for chain in range(sums.count):
            sums.set(chain, splat(chain, dot.lanes, "int32"))
        factors = [dot.weights(weights, 2 * n) for n in range(2)]
        held = [dot.pixels(x, n * dot.bytes) for n in range(sums.count // 2)] if isa.has_dot else []
        with T.serial(0, self.rounds) as number:
            pixels = held or [dot.pixels(x, number % STEPS * dot.bytes + n * dot.bytes) for n in range(sums.count // 2)]
            for chain in range(sums.count):
                sums.set(chain, dot.add(sums.get(chain), pixels[chain // 2], factors[chain % 2]))
        for chain in range(sums.count):
            store(y, chain * dot.lanes, sums.get(chain), dot.lanes)
