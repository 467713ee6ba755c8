"""The target `cpu` with `--precision int8`: code for a quantised model, in this machine's int8 instructions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import onnx_ir as ir

from prunec.backends.base import BuildOptions
from prunec.backends.cpu.isa import Isa, int8_isa, int8_weight_bits
from prunec.backends.cpu.target import Cpu

PATTERNS = ("block:4x4", "block:8x4", "block:4x8", "block:8x8", "block:16x4", "channel")


class Int8Cpu(Cpu):
    """The subject is a quantised model, and so is the dense one that it is compared with.

    Where layers are only timed the model is float32 and quantised here, with grids that mean nothing, but for the
    layers `in_float`.
    """

    precision = "int8"

    def __init__(self, in_float: Collection[str] = ()) -> None:
        self.in_float = frozenset(in_float)

    def leaving(self, in_float: Collection[str]) -> Int8Cpu:
        """The same target where these layers, and no others, are timed in float32."""
        return Int8Cpu(in_float)

    def takes(self, precision: str | None) -> bool:
        return precision in ("int8", "mixed")

    def isa(self) -> Isa:
        return int8_isa()

    @property
    def patterns(self) -> tuple[str, ...]:
        return PATTERNS

    def form(self, model: ir.Model) -> ir.Model:
        from prunec.passes.quantise import unfitted

        return unfitted(model, self.in_float, bits=int8_weight_bits())

    def between_us(
        self,
        model: ir.Model,
        layers: Collection[str],
        threads: int,
        shapes: Mapping[str, Sequence[int]] | None,
        /,
    ) -> float:
        """Measured here. PrunecError PC45x as `times`."""
        self.check(BuildOptions(precision=self.precision))
        from prunec.backends.cpu.kernel_table import between_us

        return between_us(self.form(model), layers, self.isa(), threads=threads, shapes=shapes)
