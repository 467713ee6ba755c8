"""What targets of other machines share: linked by zig, one program, and times that are modelled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from prunec.backends.base import BuildOptions, LayerTimes
from prunec.backends.cpu.generated import Generated
from prunec.backends.cpu.isa import Isa
from prunec.backends.cross.half import STORAGES
from prunec.backends.cross.zig import zig
from prunec.cache import Cache
from prunec.diagnostics import Diagnostic, PrunecError
from prunec.passes.sparsify import LayerPattern

if TYPE_CHECKING:
    from prunec.backends.cross.cost_model import Core


class Cross(Generated):
    """See the module."""

    specialises = False
    models_times = True
    isa: Isa
    """That its layers are modelled for."""
    extras = "tvm,cross"

    def check_options(self, options: BuildOptions) -> None:
        """PC440, PC452, PC463: options; PC453, PC455: nothing to build with."""
        super().check_options(options)
        zig()
        if options.storage not in STORAGES:
            message = f"weights cannot be stored as {options.storage!r}"
            raise PrunecError("PC440", message, where="--storage", hint=" or ".join(STORAGES))
        if options.tune != "none":
            message = f"kernels are measured on the machine that will run them, and {self.name} is for another one"
            raise PrunecError("PC463", message, where="--tune", hint="leave it out, or use --target cpu")

    def rounding(
        self, model: ir.Model, stored: ir.Model, samples: Sequence[Mapping[str, np.ndarray]]
    ) -> tuple[Diagnostic, ...]:
        """PC471: what rounding the weights changes, where they were rounded."""
        if stored is model:
            return ()
        from prunec.backends.onnx.session import make_session, run
        from prunec.verify.metrics import max_relative

        sessions, worst = [make_session(each) for each in (model, stored)], 0.0
        for feeds in samples:
            wanted, found = (run(session, feeds) for session in sessions)
            worst = max([worst, *(max_relative(wanted[name], found[name]) for name in wanted)])
        message = (
            f"weights are rounded to half precision: outputs differ from model.onnx's by {worst:.1e} of their range"
        )
        return (Diagnostic("PC471", message, hint="leave out --storage fp16"),)

    def times(
        self,
        model: ir.Model,
        layers: Mapping[str, LayerPattern],
        threads: int,
        shapes: Mapping[str, Sequence[int]] | None,
        cache: Cache | None,
    ) -> Mapping[str, LayerTimes]:
        """Modelled (`cost_model`), of the layers that there is a model of. PC452, PC464 where it has no code."""
        return self.modelled(model, [layers], shapes)[0]

    def modelled(
        self,
        model: ir.Model,
        levels: Sequence[Mapping[str, LayerPattern]],
        shapes: Mapping[str, Sequence[int]] | None,
        progress: Callable[[int, int], None] = lambda done, of: None,
    ) -> list[Mapping[str, LayerTimes]]:
        """As `times`, for each of the `levels`."""
        self.check_options(BuildOptions(builds=False, precision=self.precision))
        from prunec.backends.cpu.kernel_table import with_zeros
        from prunec.backends.cross.cost_model import node_times
        from prunec.backends.cross.lowered import lowered

        def own(each: ir.Model) -> dict[str, float]:
            return node_times(lowered(self.form(each), self.isa, shapes or {})[1], self.isa)

        dense, found, label = own(model), list[Mapping[str, LayerTimes]](), self.core.label
        for number, layers in enumerate(levels):
            progress(number, len(levels))
            sparse = own(with_zeros(model, layers))
            found.append({n: LayerTimes(dense[n], sparse[n], label) for n in layers if n in dense and n in sparse})
        return found

    @property
    def core(self) -> Core:
        """That its layers are modelled on."""
        from prunec.backends.cross.cost_model import core_for

        return core_for(self.isa, is_int8=self.precision == "int8")


def only_shapes(options: BuildOptions) -> Mapping[str, Sequence[int]]:
    """The shapes of the one program that there is."""
    return options.shapes[0] if options.shapes else {}
