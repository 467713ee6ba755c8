"""A whole model as a program: on another machine there is no ONNX Runtime to fall back on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from prunec.backends.cpu.isa import ARM64, ARM64_DOT, Isa
from prunec.backends.cpu.lower.candidates import Choose, by_rule
from prunec.backends.cpu.lower.lowering import Refusal
from prunec.backends.cpu.lower.prepare import prepare
from prunec.backends.cpu.lower.program import Program
from prunec.backends.cpu.parts import split_model
from prunec.backends.cross.cost_model import by_model
from prunec.diagnostics import PrunecError
from prunec.frontend.input_shapes import complete_shapes

Shapes = Mapping[str, Sequence[int]]
_SHOWN = 8
_CHOOSERS: Mapping[str, Choose] = {ARM64.name: by_model, ARM64_DOT.name: by_model}
"""Of kernels, where not by rule: no ARM device was there to find a rule on."""


def lowered(model: ir.Model, isa: Isa, shapes: Shapes, choose: Choose | None = None) -> tuple[ir.Model, Program]:
    """The prepared model and its program. `choose` None: as the instruction set does.

    Raises:
        PrunecError PC452: shapes that are not known; PC464: nodes without generated code, every one of them.
    """
    ready = prepare(model, complete_shapes(model, shapes))
    split = split_model(ready, isa, choose or _CHOOSERS.get(isa.name, by_rule))
    program = split.parts[0].program
    if not split.is_whole or program is None:
        target = "wasm" if isa.int8 == "wasm" else "arm64"
        raise PrunecError(
            "PC464", f"no generated code for {_listed(split.refusals)}", where=f"--target {target}",
            hint="there is no ONNX Runtime beside it to fall back on; --target cpu or onnx takes the model",
        )  # fmt: skip
    return ready, program


def bools(model: ir.Model) -> list[str]:
    """Names of the inputs and outputs that are bools."""
    values = (*model.graph.inputs, *model.graph.outputs)
    return [value.name or "" for value in values if value.dtype == ir.DataType.BOOL]


def _listed(refusals: Sequence[Refusal]) -> str:
    """Every kind of refusal, with the first node that it befell and how many more."""
    nodes: dict[tuple[str, str], list[str]] = {}
    for refusal in refusals:
        nodes.setdefault((refusal.node.op_type, refusal.reason), []).append(refusal.node.name or "unnamed")
    kinds = [
        f"{op} ({reason}): {own[0]}" + (f" and {len(own) - 1} more" if len(own) > 1 else "")
        for (op, reason), own in nodes.items()
    ]
    rest = f"; and {len(kinds) - _SHOWN} more kinds" if len(kinds) > _SHOWN else ""
    return "; ".join(kinds[:_SHOWN]) + rest
