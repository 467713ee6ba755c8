"""What a compile knows in the end, as the records of the package."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from prunec.api.options import PlanOptions
from prunec.backends.base import BuildOptions, spell_range
from prunec.graph.cost import FLOAT_TYPES, model_macs, node_macs, parameter_count
from prunec.graph.shapes import dims, is_constant
from prunec.passes.compensate import CompensationRecord as Compensation
from prunec.plan.budget import NUMBERS
from prunec.plan.levels import DEFAULT_SOURCE
from prunec.plan.permutation import orders_by_default
from prunec.plan.plan import Plan
from prunec.plan.structures import DEFAULT_STRUCTURES
from prunec.verify.records import CompensationRecord, SparsityRecord


def sparsity_record(dense: ir.Model, pruned: ir.Model, plan: Plan) -> SparsityRecord:
    """Shares that are gone, counted on the models themselves; `requested` in the unit of a counted budget."""
    return SparsityRecord(
        requested=None if plan.budget.kind in NUMBERS else round(1 - plan.budget.limit(), 12),  # 1 - 0.7 is not 0.3
        realised_params=_gone(parameter_count(dense), parameter_count(pruned)),
        realised_flops=_gone(model_macs(dense), model_macs(pruned)),
    )


def finite(value: float) -> float | None:
    """Records have no infinities: such a field is absent."""
    return value if math.isfinite(value) else None


def _gone(before: int, after: int) -> float:
    return 1 - after / before if before else 0.0


def compensation_records(records: Sequence[Compensation]) -> tuple[CompensationRecord, ...] | None:
    """One record per layer that was refitted or left as it was; None if there is none."""
    found = tuple(
        CompensationRecord(layer=r.layer, method=r.method, error_before=r.error_none, error_after=r.error_chosen)
        for r in records
        if math.isfinite(r.error_none) and math.isfinite(r.error_chosen)
    )
    return found or None


def layer_table(dense: ir.Model, pruned: ir.Model) -> list[dict[str, Any]]:
    """Cost of every layer with weights, before and after, in execution order; nodes are paired by name."""
    after = {node.name: node for node in pruned.graph}
    rows = []
    for node in dense.graph:
        if not _parameters(node):
            continue
        same = after.get(node.name)  # None: it went with its block
        rows.append(
            {
                "name": node.name or "",
                "op": node.op_type,
                "macs_before": node_macs(node),
                "macs_after": 0 if same is None else node_macs(same),
                "params_before": _parameters(node),
                "params_after": 0 if same is None else _parameters(same),
            }
        )
    return rows


def command_line(source: str, plan: Plan, extra: Mapping[str, object]) -> str:
    """The command that makes the package again, with file names as they were given."""
    words = ["prunec", "compile", source, "--target", plan.target, f"--{plan.budget.kind}", f"{plan.budget.value:g}"]
    if plan.layers:
        level = max(layer.level for layer in plan.layers) if plan.level is None else plan.level
        is_implied = plan.budget.kind == "sparsity" or plan.budget.is_measured
        words += [] if is_implied else ["--sparsity", f"{level:g}"]
        words += [] if plan.allocation is None else ["--allocation", plan.allocation]
        words += [] if plan.losses in (None, DEFAULT_SOURCE) else ["--losses", plan.losses]
        words += ["--pattern", plan.pattern, "--solver", plan.solver or "balanced"]
        if (plan.permutation is not None) != orders_by_default(plan.solver):  # not what happens by itself
            words.append("--no-permute" if plan.permutation is None else "--permute")
    if plan.recovery is not None:
        words += ["--recover", plan.recovery.method, "--recover-minutes", f"{plan.recovery.minutes:g}"]
        words += [] if plan.recovery.soup == 1 else ["--recover-soup", str(plan.recovery.soup)]
        words += [] if plan.recovery.steps == 1 else ["--steps", str(plan.recovery.steps)]
    for name, value in extra.items():
        if value is True:
            words.append(f"--{name}")
        elif isinstance(value, list):
            words += [word for one in value for word in (f"--{name}", str(one))]
        elif value is not None and value is not False:
            words += [f"--{name}", str(value)]
    for name, patterns in (("include", plan.include), ("exclude", plan.exclude)):
        for pattern in patterns:
            words += [f"--{name}", pattern]
    return shlex.join([*words, "--seed", str(plan.seed)])


def given_options(
    asked: PlanOptions, build: BuildOptions, structures: Sequence[str], metric: str | None
) -> dict[str, object]:
    """Options of the command line by name, as they were given; None or False: not at all.

    Without those that the plan knows (`command_line`).
    """
    demo = build.demo
    return {
        "recipe": asked.recipe, "criterion": asked.criterion, "scope": asked.scope, "round-to": asked.round_to,
        "structures": None if tuple(structures) == DEFAULT_STRUCTURES else ",".join(structures),
        "polish": asked.polish or None, "no-compensate": asked.compensation == "none", "samples": asked.samples,
        "no-measure": not build.measures, "metric": metric,
        "calib": asked.calib if isinstance(asked.calib, str | Path) else None, "no-build": not build.builds,
        "precision": build.precision, "rounding": asked.rounding, "products": build.products,
        "tune": None if build.tune == "none" else build.tune,
        "weights": build.weights, "relaxed-simd": build.relaxed_simd,
        "storage": None if build.storage == "fp32" else build.storage, "finer": asked.finer,
        "demo": demo is not None, "demo-labels": demo and demo.labels, "demo-vocabulary": demo and demo.vocabulary,
        "shape-range": [spell_range(name, given) for name, given in build.ranges.items()] or None,
    }  # fmt: skip


def _parameters(node: ir.Node) -> int:
    values = (value for value in node.inputs if value is not None and is_constant(value) and value.dtype in FLOAT_TYPES)
    return sum(math.prod(d for d in dims(value) or () if isinstance(d, int)) for value in values)
