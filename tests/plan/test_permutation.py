"""Orders in a plan: what is written comes back, and what the model does not allow is refused."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from pydantic import ValidationError

from prunec.diagnostics import PrunecError
from prunec.graph.orders import analyse_orders, cells
from prunec.plan.fingerprint import fingerprint
from prunec.plan.permutation import OrderPlan, PermutationPlan, source_of
from tests.graph.checks import prepare
from tests.graph.test_micro import build


def model_of(name: str) -> ir.Model:
    return prepare(build(name))[0]


def order_of(group: str, order: list[int]) -> OrderPlan:
    return OrderPlan(
        id=group, size=len(order), producers=("conv1",), kept_before=0.8, kept_after=0.9, error_before=0.2,
        error_after=0.1, order=tuple(order),
    )  # fmt: skip


def plan_of(model: ir.Model, *groups: OrderPlan) -> PermutationPlan:
    return PermutationPlan(fingerprint=fingerprint(model, analyse_orders(model)), groups=groups, left=())


def test_an_order_moves_its_group_and_nothing_else() -> None:
    model = model_of("conv_relu_conv")
    orders = analyse_orders(model)
    group = next(group for group in orders.groups if group.pinned is None)
    source = source_of(plan_of(model, order_of(group.id, [*range(1, 16), 0])), model, orders)
    moved = np.flatnonzero(source != np.arange(len(source)))
    assert set(moved.tolist()) == set(group.channels.tolist())
    assert source[group.channels].tolist() == [*group.channels[1:], group.channels[0]]


@pytest.mark.parametrize("order", [[0, 0, 2], [0, 1, 3], [1, 2]])
def test_what_is_no_order_is_no_plan(order: list[int]) -> None:
    with pytest.raises(ValidationError):
        OrderPlan.model_validate({**order_of("g0", [0, 1, 2]).model_dump(), "order": order})


def test_a_group_that_is_listed_twice() -> None:
    with pytest.raises(ValidationError, match="twice"):
        PermutationPlan(fingerprint="", groups=(order_of("g0", [0, 1]), order_of("g0", [1, 0])), left=())


def test_unknown_groups_and_other_sizes() -> None:
    model = model_of("conv_relu_conv")
    for wrong in (order_of("g99", [1, 0]), order_of("g0", [1, 0])):
        with pytest.raises(PrunecError, match="PC204"):
            source_of(plan_of(model, wrong), model, analyse_orders(model))


def test_another_graph() -> None:
    model, other = model_of("conv_relu_conv"), model_of("depthwise")
    group = next(group for group in analyse_orders(model).groups if group.pinned is None)
    with pytest.raises(PrunecError, match="PC205"):
        source_of(plan_of(other, order_of(group.id, [*range(1, 16), 0])), model, analyse_orders(model))


def test_channels_that_a_slice_takes_apart_and_graph_outputs() -> None:
    model = model_of("static_slice")
    orders = analyse_orders(model)
    first, second = cells(orders)
    group = next(group for group in orders.groups if group.id == first.group)
    swapped = list(range(group.size))
    a, b = (int(np.flatnonzero(group.channels == cell.classes[0])[0]) for cell in (first, second))
    swapped[a], swapped[b] = b, a
    with pytest.raises(PrunecError, match="other layers see them apart"):
        source_of(plan_of(model, order_of(group.id, swapped)), model, orders)
    pinned = next(group for group in orders.groups if group.pinned is not None)
    with pytest.raises(PrunecError, match="graph output"):
        source_of(plan_of(model, order_of(pinned.id, [*range(1, pinned.size), 0])), model, orders)
