"""The target `cpu` with `--precision int8`: code for a quantised model, in this machine's int8 instructions."""

from __future__ import annotations

from prunec.backends.cpu.isa import Isa, int8_isa
from prunec.backends.cpu.target import Cpu

PATTERNS = ("block:4x4", "block:8x4", "block:4x8", "block:8x8", "block:16x4", "channel")


class Int8Cpu(Cpu):
    """The subject is a quantised model, and so is the dense one that it is compared with."""

    precision = "int8"

    def isa(self) -> Isa:
        return int8_isa()

    @property
    def patterns(self) -> tuple[str, ...]:
        return PATTERNS
