"""The steps of one plan, each from the model that the step before left (`plan.structures` has their order).

What a plan says is turned into models here, the same way for a compile, a replay and a verification.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import onnx_ir as ir

from prunec.api.opening import Opened
from prunec.api.permuting import permuted
from prunec.catalog import unknown_name
from prunec.diagnostics import PrunecError
from prunec.graph import Analysis, analyse
from prunec.graph.branches import Block, find_blocks
from prunec.graph.head_width import analyse_widths
from prunec.passes.mask_channels import mask_channels
from prunec.passes.project_outputs import drop_projections, project_outputs
from prunec.passes.remove_blocks import drop_identities, mask_blocks, remove_blocks
from prunec.passes.slice_channels import slice_channels
from prunec.plan.plan import Plan, Realised
from prunec.plan.replay import check_groups, check_plan, check_source, with_realised
from prunec.plan.shares import baseline_cost, prunable_weights, shares
from prunec.plan.structures import DEFAULT_STRUCTURES, WIDTHS, StageName

Key = TypeVar("Key")
Axes = tuple[np.ndarray | None, ...]


@dataclass(frozen=True)
class Stage:
    """`before` → `after`: the classes that are not `alive` are cut, or `blocks` are removed."""

    name: StageName
    before: ir.Model
    analysis: Analysis
    alive: np.ndarray
    blocks: tuple[Block, ...]
    after: ir.Model

    def masked(self) -> ir.Model:
        """The reference that `after` has to equal."""
        if self.name == "depth":
            return mask_blocks(self.before, self.blocks)
        return mask_channels(self.before, self.analysis, self.alive)


def base_model(opened: Opened, structures: Collection[str]) -> ir.Model:
    """What the first stage starts from: the canonical model, its outputs projected where streams may be cut."""
    return project_outputs(opened.canonical) if "residual" in structures else opened.canonical


def analyse_channels(opened: Opened, model: ir.Model, structures: Collection[str]) -> Analysis:
    """Groups of the stage of channels: all of them, or those of class C where only streams or experts are to be cut."""
    residual, experts = "residual" in structures, "experts" in structures
    known = model is opened.canonical and not residual and not experts
    analysis = opened.analysis if known else analyse(model, residual=residual, experts=experts)
    if "channels" in structures:
        return analysis
    wanted = (group for group in analysis.groups if group.kind == "C" or group.experts is not None)
    return replace(analysis, groups=tuple(wanted))


def inspected(opened: Opened, structures: Collection[str]) -> Analysis:
    """The groups to look at: those of the stage of channels, or the head widths where nothing else is asked for.

    Raises:
        PrunecError PC216: head widths beside channels, whose groups have numbers of their own.
    """
    if "head-width" not in structures:
        cuts_channels = WIDTHS & set(structures)
        model = base_model(opened, structures)
        return analyse_channels(opened, model, structures if cuts_channels else DEFAULT_STRUCTURES)
    if WIDTHS & set(structures):
        hint = "inspect --structures head-width"
        raise PrunecError("PC216", "head widths are listed by themselves", where="--structures", hint=hint)
    return analyse_widths(opened.canonical)


def remove(model: ir.Model, blocks: Sequence[Block]) -> Stage:
    """The stage of depth."""
    analysis = analyse(model)
    return Stage(
        "depth", model, analysis, np.ones(analysis.channel_count, bool), tuple(blocks), remove_blocks(model, blocks)
    )


def cut(name: StageName, model: ir.Model, analysis: Analysis, alive: np.ndarray) -> Stage:
    """A stage that cuts channels."""
    return Stage(name, model, analysis, alive, (), slice_channels(model, analysis, alive))


def stages_of(opened: Opened, plan: Plan) -> list[Stage]:
    """The stages of a plan that fits the model.

    Raises:
        PrunecError PC204, PC205: it does not fit.
    """
    if plan.structures == DEFAULT_STRUCTURES:
        alive = opened.analysis.alive(plan.keeps())
        return [cut("channels", permuted(opened, plan), opened.analysis, alive)]
    stages: list[Stage] = []
    model = base_model(opened, plan.structures)
    cuts_channels = WIDTHS & set(plan.structures)
    if not cuts_channels:
        check_groups((), plan.fingerprint, opened.canonical, opened.analysis)
    if "depth" in plan.structures:
        stages.append(remove(model, _blocks(model, plan)))
        model = stages[-1].after
    if cuts_channels:
        analysis = analyse_channels(opened, model, plan.structures)
        alive = check_groups(plan.groups, plan.fingerprint, model, analysis)
        stages.append(cut("channels", model, analysis, alive))
        model = stages[-1].after
    if "head-width" in plan.structures:
        analysis = analyse_widths(model)
        widths = plan.head_width
        groups, name = ((), "") if widths is None else (widths.groups, widths.fingerprint)
        alive = check_groups(groups, name, model, analysis)
        stages.append(cut("head-width", model, analysis, alive))
    return stages


def _blocks(model: ir.Model, plan: Plan) -> list[Block]:
    known = {block.name: block for block in find_blocks(model)}
    for planned in plan.depth:
        if planned.name not in known:
            raise unknown_name("PC204", "block", planned.name, known)
    return [known[planned.name] for planned in plan.depth]


def checked(opened: Opened, plan: Plan) -> Plan:
    """A plan from a file, fit to be applied to the model; what it realises is worked out anew.

    Raises:
        PrunecError PC204, PC205: as `plan.replay.check_plan`.
    """
    if plan.structures == DEFAULT_STRUCTURES:
        return check_plan(plan, opened.canonical, opened.analysis, source_sha256=opened.source.sha256)
    check_source(plan, opened.source.sha256)
    return with_realised(plan, realised_shares(opened, stages_of(opened, plan)))


def realised_shares(opened: Opened, stages: Sequence[Stage]) -> Realised:
    """What the stages leave, counted on the models themselves."""
    prunable = frozenset[str]().union(
        *(prunable_weights(s.before, [g for g in s.analysis.groups if g.pinned is None]) for s in stages)
    )
    final = tidied(stages[-1].after)
    return shares(baseline_cost(final, prunable), baseline_cost(opened.canonical, prunable))


def tidied(model: ir.Model) -> ir.Model:
    """A copy without what the stages left behind for compensation: identities, and projections of whole streams."""
    tidy = model.clone()
    drop_projections(tidy)
    drop_identities(tidy)
    return tidy


def whole(stages: Sequence[Stage]) -> tuple[Analysis, np.ndarray]:
    """What all stages together leave of the first one's model, as two classes per axis: gone (0) and kept (1).

    Values and uses are paired by name. For compensation, which asks for nothing else.
    """
    first = stages[0].analysis
    values = _compose([(stage.analysis.value_axes, stage.alive) for stage in stages])
    uses = _compose([(stage.analysis.use_axes, stage.alive) for stage in stages])
    return replace(first, groups=(), value_axes=values, use_axes=uses, channel_count=2), np.array([False, True])


def _compose(stages: Sequence[tuple[Mapping[Key, Axes], np.ndarray]]) -> dict[Key, Axes]:
    """Per axis int64 [length in the first model], 1 where no stage cut the position; None where all are there."""
    found: dict[Key, list[np.ndarray | None]] = {}
    for axes, alive in stages:
        for key, ids in axes.items():
            masks = found.setdefault(key, [None] * len(ids))
            for axis, own in enumerate(ids):
                left = None if own is None else alive[own]
                before = masks[axis]
                if left is None or left.all():
                    continue
                if before is None:
                    masks[axis] = left.copy()
                else:
                    before[before] = left
    return {
        key: tuple(None if mask is None else mask.astype(np.int64) for mask in masks) for key, masks in found.items()
    }
