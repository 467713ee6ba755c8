"""Replay a plan: the same model, the same channels.

A plan that was not edited comes back with the same bytes. An edited one comes back with its realised ratios worked out
anew and a note that the budget is no longer what decided.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from prunec.catalog import unknown_name
from prunec.diagnostics import PrunecError
from prunec.graph import Analysis
from prunec.plan.cost_model import CostModel
from prunec.plan.fingerprint import fingerprint
from prunec.plan.plan import GroupPlan, Plan, Realised
from prunec.plan.shares import prunable_weights, realised
from prunec.plan.structures import DEFAULT_STRUCTURES

EDITED = "cut by hand: the budget was not checked again"


def check_plan(plan: Plan, model: ir.Model, analysis: Analysis, *, source_sha256: str = "") -> Plan:
    """`plan`, fit to be applied to this canonical model: one that cuts channels and nothing else.

    Raises:
        PrunecError PC219: it removes other structures as well (see `api.stages` for those).
        PrunecError PC204: a group that is not there, is pinned or has another size, or an axis that runs empty.
        PrunecError PC205: the plan was made for another model, or by another version for this one.
    """
    if plan.structures != DEFAULT_STRUCTURES:
        raise PrunecError(
            "PC219",
            f"the plan removes {', '.join(plan.structures)}; here only plans of channels can be applied",
            hint="prunec compile --plan applies it",
        )
    check_source(plan, source_sha256)
    alive = check_groups(plan.groups, plan.fingerprint, model, analysis)
    return with_realised(plan, realised_by(plan.groups, model, analysis, alive))


def realised_by(groups: Sequence[GroupPlan], model: ir.Model, analysis: Analysis, alive: np.ndarray) -> Realised:
    """What a cut of these groups leaves; weights count that are in groups the user did not exclude."""
    cuttable = {planned.id for planned in groups if planned.why != "excluded"}
    weights = prunable_weights(model, [group for group in analysis.groups if group.id in cuttable])
    return realised(CostModel(model, analysis, weights), analysis, alive)


def with_realised(plan: Plan, now: Realised) -> Plan:
    """`plan`, with a note where what it realises is not what it says."""
    if now == plan.realised:
        return plan
    return plan.model_copy(update={"realised": now, "notes": (*(n for n in plan.notes if n != EDITED), EDITED)})


def check_source(plan: Plan, source_sha256: str) -> None:
    """Refuse another model file. PrunecError PC205."""
    if source_sha256 and plan.source_sha256 and source_sha256 != plan.source_sha256:
        raise PrunecError(
            "PC205",
            f"the plan was made for another model file (sha256 {plan.source_sha256[:12]}…, not {source_sha256[:12]}…)",
            hint="write a plan for this file with prunec plan, or pass the model that the plan was made for",
        )


def check_groups(groups: Sequence[GroupPlan], name: str, model: ir.Model, analysis: Analysis) -> np.ndarray:
    """The class mask that the groups leave alive, in the model with fingerprint `name`. PrunecError PC204, PC205."""
    _check_sizes(groups, analysis)
    if name != fingerprint(model, analysis):
        raise PrunecError(
            "PC205",
            "the model's graph or groups differ from those the plan was made for",
            hint="another version of prunec sees this model differently: write the plan again with prunec plan",
        )
    alive = analysis.alive({group.id: group.keep() for group in groups})
    if analysis.empty_axes(alive):
        raise PrunecError(
            "PC204",
            "the cut leaves an axis of some tensor without channels",
            hint="a slice or a part of a split of one group is cut whole: keep one of its channels",
        )
    return alive


def _check_sizes(groups: Sequence[GroupPlan], analysis: Analysis) -> None:
    known = {group.id: group for group in analysis.groups}
    for planned in groups:
        group = known.get(planned.id)
        if group is None:
            raise unknown_name("PC204", "group", planned.id, known)
        if group.size != planned.size:
            message = f"the plan gives it {planned.size} channels, the model has {group.size}"
            raise PrunecError("PC204", message, where=planned.id, hint="write the plan again with prunec plan")
        if group.pinned is not None and planned.cut:
            message = f"the group cannot be cut: {group.pinned.node} {group.pinned.reason}"
            raise PrunecError("PC204", message, where=planned.id, hint="empty its list of cut channels")
