"""From a model to the folder `wasm`: prepare, lower whole, generate, link."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.lower.program import Program
from prunec.backends.cross.half import Storage, stored_as
from prunec.backends.cross.lowered import Shapes, bools, lowered
from prunec.backends.wasm.artifact import check_memory, write_folder
from prunec.backends.wasm.spec import Placement


@dataclass(frozen=True)
class Built:
    """`model` is what it computes; `ready` the same as it was lowered: static, in the form that the rules want.

    `in_float`: as `Program` has it.
    """

    folder: Path
    model: ir.Model
    ready: ir.Model
    in_float: Mapping[str, str]


def checked(model: ir.Model, isa: Isa, shapes: Shapes) -> tuple[ir.Model, Program]:
    """As `lowered`, and PC465: more weights than a 32-bit memory holds."""
    check_memory(sum(t.nbytes for v in model.graph.initializers.values() if (t := v.const_value) is not None))
    return lowered(model, isa, shapes)


def build(
    model: ir.Model,
    isa: Isa,
    package: Path,
    shapes: Shapes,
    *,
    name: str,
    placement: Placement = "beside",
    storage: Storage = "fp32",
) -> Built:
    """Write `package`/wasm. Raises as `checked`, and PC453: no C compiler."""
    model = stored_as(model, storage)
    ready, program = checked(model, isa, shapes)
    folder = write_folder(program, bools(ready), isa, package, name=name, placement=placement, storage=storage)
    return Built(folder, model, ready, program.in_float)
