"""The target `wasm` with `--precision int8`: a module for a quantised model."""

from __future__ import annotations

from prunec.backends.cpu.int8_target import PATTERNS
from prunec.backends.wasm.target import Wasm


class Int8Wasm(Wasm):
    """The subject is a quantised model, and so is the dense one that it is compared with."""

    precision = "int8"
    patterns = PATTERNS
