"""Nothing but multiply-adds in registers: what the processor can do at most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tvm.tirx.script.builder import ir as T

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.base import Argument, Kernel, load, splat, store

CHAINS = 12
"""Independent sums: more than latency × units of any of our processors, fewer than registers."""


@dataclass(frozen=True)
class Peak(Kernel):
    """`rounds` × CHAINS vector multiply-adds on one thread."""

    family: ClassVar[str] = "peak"

    rounds: int

    def arguments(self) -> tuple[Argument, ...]:
        return (Argument("x", "float32", 2), Argument("y", "float32", 64 * CHAINS))

    def flops(self, isa: Isa) -> int:
        return 2 * self.rounds * CHAINS * isa.lanes("float32")

    def emit(self, isa: Isa, x: Any, y: Any) -> None:
        lanes = isa.lanes("float32")
        factor, term = T.bind(T.Broadcast(x[0], lanes)), T.bind(T.Broadcast(x[1], lanes))
        sums = T.alloc_buffer((CHAINS * lanes,), "float32", scope="local")
        for chain in range(CHAINS):
            store(sums, chain * lanes, splat(chain / CHAINS, lanes), lanes)
        with T.serial(0, self.rounds):
            for chain in range(CHAINS):
                at = chain * lanes
                store(sums, at, load(sums, at, lanes) * factor + term, lanes)
        for chain in range(CHAINS):
            store(y, chain * lanes, load(sums, chain * lanes, lanes), lanes)
