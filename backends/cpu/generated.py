"""What targets with generated kernels share: float32, fixed shapes, no rules about which layers may have zeros."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx_ir as ir

from prunec.backends.base import BuildOptions, Verdict
from prunec.backends.cpu.isa import int8_weight_bits
from prunec.backends.cpu.verdicts import judge
from prunec.diagnostics import Diagnostic, PrunecError
from prunec.plan.layers import ANY_LAYER, TargetRules


class Generated:
    """`rows`: of the blocks that its layers are judged by; `extras`: what `pip install` needs to compile for it."""

    name: str
    rows: int
    extras = "tvm"
    models_times = False
    precision: str | None = None
    """What its kernels compute in; None: float32."""

    def form(self, model: ir.Model) -> ir.Model:
        """A float32 model as its kernels would compute it, to be timed: with int8 on grids that mean nothing."""
        if self.precision is None:
            return model
        from prunec.passes.quantise import unfitted

        return unfitted(model, bits=int8_weight_bits())

    def check_options(self, options: BuildOptions) -> None:
        """PC455: no code generator; PC440, PC452: options about what generated code does not have."""
        if importlib.util.find_spec("tvm") is None:
            hint = f"pip install 'prunec[{self.extras}]'"
            raise PrunecError("PC455", "the code generator is not installed", where=f"--target {self.name}", hint=hint)
        if options.ranges:
            message = "generated code has fixed shapes"
            raise PrunecError("PC452", message, where="--shape-range", hint="use --input-shape NAME=1,3,224,224")
        if not self.takes(options.precision) or options.products is not None:
            option = "--products" if self.takes(options.precision) else "--precision"
            message = f"{self.name} computes in float32, with products of its own"
            raise PrunecError("PC440", message, where=option, hint="leave it out, or use --target tensorrt-2:4")

    def takes(self, precision: str | None) -> bool:
        """Whether its kernels compute so."""
        return precision == self.precision

    def judge(self, model: ir.Model) -> Sequence[Verdict]:
        return judge(model, self.rows)

    def rules(self, model: ir.Model) -> TargetRules:
        return ANY_LAYER

    def verify(self, package: Path) -> None:
        """Nothing of the artifact's own: `verify` compares every compiled model with ONNX Runtime."""


def said_in_float(layers: Mapping[str, str]) -> tuple[Diagnostic, ...]:
    """PC486: quantised layers that compute in float32, by node, with the reason; nothing where there are none."""
    if not layers:
        return ()
    shown = "; ".join(f"{node} ({why})" for node, why in list(layers.items())[:4])
    more = f" and {len(layers) - 4} more" if len(layers) > 4 else ""
    count = f"{len(layers)} quantised layers compute" if len(layers) > 1 else "one quantised layer computes"
    return (Diagnostic("PC486", f"{count} in float32, for which there are no int8 kernels: {shown}{more}"),)
