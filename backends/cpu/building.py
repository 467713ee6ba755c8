"""From a model to the folder `cpu`: prepare, split, lower, generate, link."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from prunec.backends.cpu.artifact import write_folder
from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.lower.prepare import prepare
from prunec.backends.cpu.parts import Split, split_model


@dataclass(frozen=True)
class Built:
    """`ready` is the model as it was lowered: static shapes, in the form that the rules want."""

    folder: Path
    ready: ir.Model
    split: Split


def build(model: ir.Model, isa: Isa, package: Path) -> Built:
    """Write `package`/cpu.

    Raises:
        PrunecError PC452: shapes that are not known; PC453: no C compiler; PC454: nothing to generate code for.
    """
    ready = prepare(model)
    split = split_model(ready, isa)
    return Built(write_folder(split, ready, isa, package), ready, split)
