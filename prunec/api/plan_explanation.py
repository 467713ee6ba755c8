"""`explain PLAN`: of every group and layer of a plan, what was decided and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prunec.api.results import Decision, PlanExplanation
from prunec.diagnostics import PrunecError
from prunec.package.manifest import PLAN
from prunec.plan.layers import DENSE
from prunec.plan.levels import Source
from prunec.plan.plan import ChoicePlan, Plan

WORDS = {
    "ratio": "the same share of every group goes, rounded",
    "threshold": "what scores below the threshold of all groups goes, rounded",
    "loss": "others lose more for what they save",
    "floor": "the least that may stay",
    "rounding": "too narrow for the step of channels",
    "excluded": "--include or --exclude keeps it whole",
}
"""Of the reasons in a plan of channels."""
LOSSES: dict[Source, str] = {
    "masked": "masks on one layer alone",
    "solved": "one layer alone, solved at each level",
    "zeroth-order": "small random changes of one layer alone",
}
"""What outputs lose by; of the sources in a plan of zeros."""
STAYS = "it would lose more than others for what it saves"


def plan_file(path: Path) -> Path | None:
    """The plan that `path` is, or that the package `path` holds; None for anything else, such as a model."""
    if path.is_dir():
        return path / PLAN
    return path if path.suffix == ".json" else None


def explain_plan(path: Path, name: str | None = None) -> PlanExplanation:
    """Decisions in the order of the plan; only those about the group or layer `name` where it is given.

    Raises:
        PrunecError PC204: it is no plan; PC120: it decides nothing about `name`.
    """
    plan = Plan.load(path)
    why = {choice.name: choice for choice in plan.choices}
    found = [*_blocks(plan), *_groups(plan, why), *_layers(plan, why)]
    if name is not None:
        found = [one for one in found if name in (one.name, *one.tensors, *map(_module, one.tensors))]
        if not found:
            hint = "without a name all are listed"
            raise PrunecError("PC120", f"the plan decides nothing about {name!r}", where=str(path), hint=hint)
    budget = f"--{plan.budget.kind} {plan.budget.value:g}"
    return PlanExplanation(
        plan=path.name, target=plan.target, budget=budget, losses=_losses(plan), time=plan.time, drop=plan.drop,
        allocation=plan.allocation, scope=None if plan.layers else plan.scope, contest=plan.contest or None,
        decisions=tuple(found),
    )  # fmt: skip


def _module(tensor: str) -> str:
    """`blocks.1.conv` of `blocks.1.conv.weight`: what frameworks call the layer, and users do."""
    return tensor.rpartition(".")[0] or tensor


def _losses(plan: Plan) -> str | None:
    """Of the source in a plan of zeros; channels have one that is not chosen."""
    return None if plan.losses is None else f"{plan.losses}: {LOSSES[plan.losses]}"


def _blocks(plan: Plan) -> list[Decision]:
    """Those that went, and those that were among the choices and stay."""
    known = {group.id for group in plan.groups} | {layer.node for layer in plan.layers}
    asked = {choice.name: choice for choice in plan.choices if choice.name not in known}
    gone = {block.name for block in plan.depth}
    return [
        Decision(
            name=name,
            what="block",
            tensors=(),
            kept=float(name not in gone),
            of=1,
            why="the outputs can spare it" if name in gone else STAYS,
            **_numbers(asked.get(name)),
        )
        for name in dict.fromkeys([*asked, *(block.name for block in plan.depth)])
    ]


def _groups(plan: Plan, why: dict[str, ChoicePlan]) -> list[Decision]:
    """Of a group that was cut in several cells, the last one's numbers would mislead: there are none."""
    several = {name for name in why if sum(choice.name == name for choice in plan.choices) > 1}
    return [
        Decision(
            name=group.id,
            what="channels",
            tensors=group.producers,
            kept=group.kept,
            of=group.size,
            why=STAYS if group.why == "loss" and not group.cut else WORDS[group.why],
            **({} if group.id in several else _numbers(why.get(group.id))),
        )
        for group in plan.groups
    ]


def _layers(plan: Plan, why: dict[str, ChoicePlan]) -> list[Decision]:
    return [
        Decision(
            name=layer.node,
            what="weights" if layer.pattern == DENSE else layer.pattern,
            tensors=(layer.tensor,),
            kept=round(1 - layer.level, 6),
            of=1,
            why=layer.why,
            precision=layer.precision,
            **_numbers(why.get(layer.node)),
        )
        for layer in plan.layers
    ]


def _numbers(choice: ChoicePlan | None) -> dict[str, Any]:
    if choice is None:
        return {}
    own = ("loss", "saved", "milder", "deeper", "quantised")
    return {name: getattr(choice, name) for name in own}
