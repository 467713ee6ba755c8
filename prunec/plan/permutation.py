"""The part of a plan that reorders channels: which order each group gets, and what was left in its own.

An order is exact only in the very graph that it was found in, and only inside the cells of `graph.orders`: both are
checked before anything is reordered.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import onnx_ir as ir
from pydantic import BaseModel, ConfigDict, Field, model_validator

from prunec.catalog import unknown_name
from prunec.diagnostics import PrunecError
from prunec.graph import Analysis
from prunec.graph.orders import cells
from prunec.plan.fingerprint import fingerprint

_HINT = "undo the edit, or write the plan again with prunec plan"


def orders_by_default(solver: str | None) -> bool:
    """Whether a compile looks for orders without being asked: where effort does not count, as they double it."""
    return solver == "best"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OrderPlan(_Strict):
    """One group: place i gets channel `order[i]`, group-local numbers.

    `kept_before`, `kept_after`: kept share of the saliency, a mean over the sparse layers. `error_before`,
    `error_after`: relative squared errors of the solved layers on held-out data, summed.
    """

    id: str
    size: Annotated[int, Field(ge=2)]
    producers: tuple[str, ...]
    kept_before: float
    kept_after: float
    error_before: float
    error_after: float
    order: tuple[int, ...]

    @model_validator(mode="after")
    def _check_order(self) -> OrderPlan:
        if sorted(self.order) != list(range(self.size)):
            raise ValueError(f"{self.id}: the order is not one of the channels 0 to {self.size - 1}, each once")
        return self


class LeftPlan(_Strict):
    """A group that stays in its own order."""

    id: str
    why: str


class PermutationPlan(_Strict):
    """`fingerprint`: of the dense canonical model and its groups as they matter for reordering."""

    fingerprint: str
    groups: tuple[OrderPlan, ...]
    left: tuple[LeftPlan, ...]

    @model_validator(mode="after")
    def _check_ids(self) -> PermutationPlan:
        ids = [group.id for group in self.groups]
        twice = next((name for name in ids if ids.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} is listed twice")
        return self


def source_of(plan: PermutationPlan, model: ir.Model, orders: Analysis) -> np.ndarray:
    """What every channel class of the dense canonical `model` takes its numbers from (int64, see `graph.orders`).

    Raises:
        PrunecError PC204: a group or an order that the model does not allow; PC205: made for another graph.
    """
    known = {group.id: group for group in orders.groups}
    source = np.arange(orders.channel_count)
    for planned in plan.groups:
        group = known.get(planned.id)
        if group is None:
            raise unknown_name("PC204", "group", planned.id, known)
        if group.size != planned.size:
            message = f"the plan gives it {planned.size} channels, the model has {group.size}"
            raise PrunecError("PC204", message, where=planned.id, hint=_HINT)
        source[group.channels] = group.channels[list(planned.order)]
    if plan.fingerprint != fingerprint(model, orders):
        hint = "another version of prunec sees this model differently: write the plan again with prunec plan"
        raise PrunecError("PC205", "the model's graph differs from the one that was reordered", hint=hint)
    cell_of = np.full(orders.channel_count, -1)
    for number, cell in enumerate(cells(orders)):
        cell_of[cell.classes] = number
    changed = np.flatnonzero(source != np.arange(len(source)))
    wrong = changed[(cell_of[changed] < 0) | (cell_of[changed] != cell_of[source[changed]])]
    if len(wrong):
        group = next(group for group in orders.groups if wrong[0] in group.channels)
        pin = group.pinned
        why = "other layers see them apart" if pin is None else f"{pin.node} {pin.reason}"
        raise PrunecError("PC204", f"two channels cannot change places: {why}", where=group.id, hint=_HINT)
    return source
