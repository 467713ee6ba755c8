"""From a model to the folder `cpu`: prepare, split, lower, generate, link."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from prunec.backends.cpu.artifact import write_folder
from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.lower.candidates import by_rule
from prunec.backends.cpu.lower.prepare import prepare
from prunec.backends.cpu.parts import Split, split_model
from prunec.backends.cpu.tuning import Tuning
from prunec.diagnostics import PrunecError
from prunec.frontend.input_shapes import complete_shapes

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Built:
    """`ready` is the model as it was lowered, once for every shape: static, in the form that the rules want."""

    folder: Path
    ready: tuple[ir.Model, ...]
    split: Split


def build(
    model: ir.Model, isa: Isa, package: Path, shapes: Sequence[Shapes] = (), tuning: Tuning | None = None
) -> Built:
    """Write `package`/cpu. `shapes`: of the inputs, one program for each; empty: as they are, dynamic batches as 1.

    Kernels are chosen by rule, or by `tuning`.

    Raises:
        PrunecError PC452: shapes that are not known; PC453: no C compiler; PC454: nothing to generate code for; PC460:
        several shapes of a model that is not generated whole.
    """
    ready, splits = split_for(model, isa, shapes, tuning)
    return Built(write_folder(splits, ready, isa, package), ready, splits[0])


def split_for(
    model: ir.Model, isa: Isa, shapes: Sequence[Shapes] = (), tuning: Tuning | None = None
) -> tuple[tuple[ir.Model, ...], tuple[Split, ...]]:
    """The model with each of the shapes, and its parts. Raises PC452, PC454 and PC460 as `build`."""
    ready = tuple(prepare(model, complete_shapes(model, each)) for each in shapes or ({},))
    splits = tuple(split_model(each, isa, by_rule if tuning is None else tuning.chooser(each)) for each in ready)
    foreign = next((split.refusals[0] for split in splits if not split.is_whole), None)
    if len(splits) > 1 and foreign is not None:
        message = f"several shapes need generated code for the whole model: {foreign.reason}"
        hint = "compile a package for each shape"
        raise PrunecError("PC460", message, where=foreign.node.name or foreign.node.op_type, hint=hint)
    return ready, splits
