"""From scores and a budget to a plan."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from prunec.criteria.base import Criterion, ScoreContext, score_groups
from prunec.diagnostics import Diagnostic, PrunecError
from prunec.graph import Analysis, Group
from prunec.plan.allocate import Arrange, Ladder, Path, Planned, by_key
from prunec.plan.budget import Budget
from prunec.plan.cells import split_cells
from prunec.plan.cost_model import CostModel
from prunec.plan.curves import Curves
from prunec.plan.fingerprint import fingerprint
from prunec.plan.global_ import score_keys
from prunec.plan.impossible import impossible, too_large
from prunec.plan.least_loss import Remaining, give_back, least_loss
from prunec.plan.normalise import Normalise
from prunec.plan.normalise import normalise as normalised
from prunec.plan.plan import GroupPlan, Plan, Scope, Why
from prunec.plan.rounding import blocked_nodes, step_for, unit
from prunec.plan.select import Selection, select_groups
from prunec.plan.shares import DIGITS, baseline_cost, own_weights, prunable_weights, shares
from prunec.plan.uniform import share_keys
from prunec.statistics.cut_errors import CutErrors

FLOORS: dict[Scope, float] = {"layer": 0.1, "global": 0.25, "loss": 0.1}
"""Least share of each group that stays: a global threshold needs the higher one, or it empties whole layers."""

WHY: dict[Scope, Why] = {"layer": "ratio", "global": "threshold", "loss": "loss"}


class Planner:
    """What can be cut, scored once, for as many budgets as are asked about.

    `model` is canonical, `context` is about it. `baseline` is the model that shares are taken of, where `model` is not
    the dense one any more.

    Raises:
        PrunecError PC206: a pattern names nothing; PC208: a value is out of range; PC209 to PC211: the criterion cannot
        score a group.
    """

    def __init__(
        self,
        model: ir.Model,
        analysis: Analysis,
        criterion: Criterion,
        context: ScoreContext,
        *,
        target: str = "onnx",
        scope: Scope = "layer",
        round_to: int | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        floor: float | None = None,
        normalise: Normalise = "mean",
        seed: int = 0,
        source_sha256: str = "",
        baseline: ir.Model | None = None,
        measured: CutErrors | None = None,
    ) -> None:
        self.step = step_for(target, round_to)
        self.floor = FLOORS[scope] if floor is None else _check_floor(floor)
        self.scope, self.analysis = scope, analysis
        self.selection = select_groups(model, analysis, include, exclude)
        scores = score_groups(criterion, self.selection.groups, context)
        common = {group: normalised(values, normalise) for group, values in scores.items()}
        prunable = prunable_weights(model, self.selection.groups)
        self.costs = CostModel(model, analysis, prunable if baseline is None else own_weights(prunable, baseline))
        whole = self.costs.evaluate(np.ones(analysis.channel_count, bool))
        self.dense = whole if baseline is None else baseline_cost(baseline, prunable)
        self._planned = _planned(
            model, analysis, self.selection, common, self.step, self.floor, scope, criterion, context, measured
        )
        self._context = context
        self._about: dict[str, Any] = {
            "source_sha256": source_sha256, "fingerprint": fingerprint(model, analysis), "target": target,
            "criterion": criterion.name, "normalise": normalise, "scope": scope, "seed": seed, "rounding": self.step,
            "floor": self.floor, "include": tuple(include), "exclude": tuple(exclude),
        }  # fmt: skip

    @property
    def notes(self) -> tuple[Diagnostic, ...]:
        """What the criterion had to say."""
        return tuple(self._context.notes)

    def least_cut(self, budget: Budget, *, is_last: bool = True, overhead: int = 0) -> Plan:
        """The least cut along the scope's path that meets a budget that is counted.

        Unless `is_last`, a budget that cannot be met gives the most that can be done. `overhead`: bytes of a model file
        beside its parameters.

        Raises:
            PrunecError PC207: the budget cannot be met.
        """

        def remaining(alive: np.ndarray) -> float:
            if budget.kind == "channels":
                return float(alive.mean())
            beside = overhead / 1e6 if budget.kind == "size-mb" else 0.0
            return budget.remaining(self.costs.evaluate(alive), self.dense) + beside

        scope = self.scope
        path = self.path(least_loss(remaining) if scope == "loss" else None)
        length = _length(path, budget, scope, remaining)
        if length is None and is_last and budget.kind == "size-mb":
            raise too_large(budget, remaining(path.alive(len(path))), self.floor)
        if length is None and is_last:
            raise impossible(budget, path, self.selection, self.costs, self.dense, floor=self.floor, step=self.step)
        length = len(path) if length is None else length
        if scope == "loss" and budget.kind != "channels":
            path = give_back(path, length, remaining, budget.limit())
            length = len(path)
        return self.describe(path, length, budget)

    def path(self, arrange: Arrange | None = None, *, scope: Scope | None = None) -> Path:
        """The path of the scope, or of another one over the same ladders, or the steps in the order of `arrange`."""
        keys = share_keys if (scope or self.scope) == "layer" else score_keys
        return self._planned.path(by_key(keys) if arrange is None else arrange)

    def describe(self, path: Path, length: int, budget: Budget, *, scope: Scope | None = None) -> Plan:
        """The plan that takes the first `length` steps of `path`; `scope`: what put them in order, if another one."""
        about = {**self._about, "scope": scope or self.scope}
        return Plan(
            budget=budget,
            groups=tuple(_describe(path, length, budget, about["scope"], self.selection)),
            realised=shares(self.costs.evaluate(path.alive(length)), self.dense),
            notes=tuple(map(str, self.notes)),
            **about,
        )


def _planned(
    model: ir.Model,
    analysis: Analysis,
    selection: Selection,
    scores: Mapping[str, np.ndarray],
    step: int,
    floor: float,
    scope: Scope,
    criterion: Criterion,
    context: ScoreContext,
    measured: CutErrors | None,
) -> Planned:
    groups = {group.id: group for group in selection.groups}
    cells = split_cells(analysis, selection.groups)
    blocked = blocked_nodes(model)
    units = [unit(cell, groups[cell.group], step, blocked) for cell in cells]
    rank = Curves(context, groups, scores, measured, greedy=criterion.name == "obs").rank if scope == "loss" else None
    return Planned(analysis, groups, cells, scores, units, floor, rank)


def _length(path: Path, budget: Budget, scope: Scope, remaining: Remaining) -> int | None:
    """Steps to take: the fewest that meet the budget; for channels per group, all up to the wanted share."""
    if budget.kind == "channels" and scope == "layer":
        return bisect_right(path.keys.tolist(), budget.value + 1e-9)
    if budget.kind == "channels":
        return path.shortest(lambda n: path.share_kept(n) <= budget.limit() + 1e-12)
    return path.shortest(lambda n: remaining(path.alive(n)) <= budget.limit() + 1e-12)


def _describe(path: Path, length: int, budget: Budget, scope: Scope, selection: Selection) -> Iterator[GroupPlan]:
    """One entry per free group, in the order of the analysis. A time asks for what it led to, nothing else."""
    is_chosen = scope == "loss" or budget.is_measured
    last = float(path.keys[length - 1]) if length else -np.inf
    ratio = budget.value if budget.kind == "channels" else max(last, 0.0)
    ladders: dict[str, list[tuple[Ladder, int]]] = defaultdict(list)
    for ladder, kept in zip(path.ladders, path.kept(length), strict=True):
        ladders[ladder.group.id].append((ladder, kept))
    excluded = {group.id for group in selection.excluded}
    for group in path.analysis.groups:
        if group.id in excluded:
            yield entry(group, [], 0.0, "excluded")
        elif group.id in ladders:
            own = ladders[group.id]
            cut = [int(i) for ladder, kept in own for i in ladder.order[kept:]]
            under = sum(int((ladder.scores <= last).sum()) for ladder, _ in own) / group.size
            requested = len(cut) / group.size if is_chosen else {"layer": ratio, "global": under}[scope]
            yield entry(group, cut, requested, _why(own, requested, scope, is_chosen=is_chosen))


def entry(group: Group, cut: list[int], requested: float, why: Why) -> GroupPlan:
    """What a plan says of a group that loses the group-local channels `cut`."""
    return GroupPlan(
        id=group.id,
        size=group.size,
        kept=group.size - len(cut),
        cut=tuple(cut),
        requested=round(requested, DIGITS),
        why=why,
        producers=tuple(dict.fromkeys(m.tensor for m in group.producers())),
    )


def _why(ladders: list[tuple[Ladder, int]], requested: float, scope: Scope, *, is_chosen: bool) -> Why:
    if all(len(ladder.rungs) == 1 for ladder, _ in ladders):
        return "rounding"
    kept, size = sum(k for _, k in ladders), sum(ladder.size for ladder, _ in ladders)
    at_floor = all(k == ladder.rungs[-1] for ladder, k in ladders)
    if at_floor and (requested > 1 - kept / size or is_chosen):
        return "floor"
    return WHY[scope]


def _check_floor(floor: float) -> float:
    if not 0 <= floor < 1:
        raise PrunecError("PC208", f"floor {floor:g}: the share of each group that stays is at least 0 and below 1")
    return float(floor)
