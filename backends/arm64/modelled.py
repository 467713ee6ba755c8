"""What layers are modelled to take on a stated core, beside the instructions that qemu counts for them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import onnx_ir as ir

from prunec.backends.arm64.artifact import write_folder
from prunec.backends.arm64.counting import Counts, step_counts
from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.lower.program import Program
from prunec.backends.cpu.timing import density_of
from prunec.backends.cross.cost_model import core_for, counted_us, microseconds, node_times
from prunec.backends.cross.lowered import bools
from prunec.measure.modelled import Modelled, ModelledLayer
from prunec.passes.quantise.strip import dequantised
from prunec.passes.sparsify.views import prunable_layers
from prunec.plan.plan import LayerPlan

NOTE = "modelled, not measured: there was no device"
COUNTED = "; instructions were counted under qemu"


def modelled(
    folder: Path,
    program: Program,
    ready: ir.Model,
    dense: tuple[ir.Model, Program],
    layers: Sequence[LayerPlan],
    isa: Isa,
) -> Modelled | None:
    """The layers with a pattern that there is a model of; None where there are none.

    `folder`: the package of `program`, whose model is `ready`; `dense`: the same of the dense model, built here.
    """
    core = core_for(isa)
    after, before = node_times(program, isa), node_times(dense[1], isa)
    wanted = [plan for plan in layers if plan.node in after and plan.node in before]
    if not wanted:
        return None
    with tempfile.TemporaryDirectory(prefix="prunec-dense-") as scratch:
        other = write_folder(dense[1], bools(dense[0]), isa, Path(scratch), name="dense")
        counts = step_counts(folder), step_counts(other)
    counted = [_by_node(each, own) for each, own in zip((program, dense[1]), counts, strict=True)]
    rest = [rest_us(each, own, isa) for each, own in zip((program, dense[1]), counts, strict=True)]
    whole: list[float | None] = [None, None]
    if rest[0] is not None and rest[1] is not None:
        whole = [round((rest[0] + sum(after.values())) / 1e3, 6), round((rest[1] + sum(before.values())) / 1e3, 6)]
    prunable = prunable_layers(dequantised(ready))
    found = []
    for plan in wanted:
        density = density_of(prunable.get(plan.node))
        found.append(
            ModelledLayer(
                name=plan.node, pattern=plan.pattern, density=round(density, 6), dense_us=round(before[plan.node], 3),
                sparse_us=round(after[plan.node], 3), speedup=round(before[plan.node] / after[plan.node], 4),
                dense_instructions=counted[1].get(plan.node), sparse_instructions=counted[0].get(plan.node),
                chosen="sparse" if density < 1 else "dense",
            )
        )  # fmt: skip
    return Modelled(
        core=core.label, note=NOTE + COUNTED * any(counted), error=core.error, layers=tuple(found),
        dense_ms=round(sum(layer.dense_us for layer in found) / 1e3, 6),
        sparse_ms=round(sum(layer.sparse_us for layer in found) / 1e3, 6), run_dense_ms=whole[1], run_ms=whole[0],
    )  # fmt: skip


def rest_us(program: Program, counts: Sequence[Counts] | None, isa: Isa) -> float | None:
    """µs of the steps that `node_times` has no model of, from their instructions; None where those are not known."""
    if counts is None:
        return None
    known, core = node_times(program, isa), core_for(isa)
    found = 0.0
    for step, own in zip(program.steps, counts, strict=True):
        if known.keys().isdisjoint(step.nodes[:1]):
            taken = microseconds(core, isa, step)
            found += counted_us(core, **asdict(own)) if taken is None else taken
    return found


def _by_node(program: Program, counts: list[Counts] | None) -> dict[str, int]:
    """Instructions of the steps of every node that begins one."""
    found: dict[str, int] = {}
    for step, own in zip(program.steps, counts or (), strict=False):
        for node in step.nodes[:1]:
            found[node] = found.get(node, 0) + own.instructions
    return found
