"""What targets of other machines share: linked by zig, one program, and nothing known of times before it runs there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from prunec.backends.base import BuildOptions, LayerTimes
from prunec.backends.cpu.generated import Generated
from prunec.backends.cross.zig import zig
from prunec.cache import Cache
from prunec.diagnostics import PrunecError
from prunec.passes.sparsify import LayerPattern


class Cross(Generated):
    """See the module."""

    specialises = False
    extras = "tvm,cross"

    def check_options(self, options: BuildOptions) -> None:
        """PC440, PC452, PC463: options; PC453, PC455: nothing to build with."""
        super().check_options(options)
        zig()
        if options.tune != "none":
            message = f"kernels are measured on the machine that will run them, and {self.name} is for another one"
            raise PrunecError("PC463", message, where="--tune", hint="leave it out, or use --target cpu")

    def times(
        self,
        model: ir.Model,
        layers: Mapping[str, LayerPattern],
        threads: int,
        shapes: Mapping[str, Sequence[int]] | None,
        cache: Cache | None,
    ) -> Mapping[str, LayerTimes]:
        """Nothing is known before it runs."""
        return {}


def only_shapes(options: BuildOptions) -> Mapping[str, Sequence[int]]:
    """The shapes of the one program that there is."""
    return options.shapes[0] if options.shapes else {}
