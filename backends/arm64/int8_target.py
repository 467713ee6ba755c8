"""The target `arm64` with `--precision int8`: libraries for a quantised model, for processors with dot products."""

from __future__ import annotations

from prunec.backends.arm64.target import Arm64
from prunec.backends.cpu.int8_target import PATTERNS
from prunec.backends.cpu.isa import ARM64_DOT


class Int8Arm64(Arm64):
    """The subject is a quantised model, and so is the dense one that it is compared with."""

    precision = "int8"
    isa = ARM64_DOT
    patterns = PATTERNS
    machines = "64-bit ARM Linux with dot products (asimddp in /proc/cpuinfo)"
