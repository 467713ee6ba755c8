"""Scope "loss": cuts go where the outputs lose least for what they save."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from prunec.criteria import ScoreContext, create
from prunec.graph.cost import model_macs
from prunec.passes.slice_channels import slice_channels
from prunec.plan.allocate import Ladder
from prunec.plan.budget import Budget
from prunec.plan.least_loss import hull_rises
from prunec.plan.plan import Plan
from prunec.plan.planner import FLOORS, Planner
from prunec.statistics import collect
from prunec.statistics.cut_errors import CutErrors
from tests.criteria.small import chain, context, prepare
from tests.graph.builder import Builder


class Data:
    """Random images, the last eight held out."""

    fingerprint = "random"

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._all = [rng.standard_normal((1, 3, 6, 6)).astype(np.float32) for _ in range(72)]

    def fit(self) -> Iterator[dict[str, np.ndarray]]:
        return ({"x": x} for x in self._all[:64])

    def held_out(self) -> Iterator[dict[str, np.ndarray]]:
        return ({"x": x} for x in self._all[64:])


def uneven(*, seed: int = 0) -> ir.Model:
    """Two hidden layers of 32 channels at equal cost: the first has 8 different ones, the second 32."""
    b = Builder(seed)
    rng = np.random.default_rng(seed)
    few = rng.standard_normal((8, 3, 3, 3))[np.arange(32) % 8] * rng.uniform(0.5, 2, (32, 1, 1, 1))
    x = b.relu(b.op("Conv", [b.input("x", [1, 3, 6, 6]), b.const(few.astype(np.float32), "few")], pads=[1, 1, 1, 1]))
    b.output(b.conv(b.relu(b.conv(x, 32, 1)), 32, 1))
    return b.model()


MODEL, ANALYSIS = prepare(uneven())
ABOUT = ScoreContext(MODEL, ANALYSIS, collect(MODEL, ANALYSIS, Data(), create("obs").needs))
ERRORS = CutErrors(MODEL, ANALYSIS, Data(), 8)


def plan(
    kind: Any = "flops", value: float = 0.7, *, scope: Any = "loss", criterion: str = "obs", **options: Any
) -> Plan:
    fresh = replace(ABOUT, notes=[])
    return Planner(MODEL, ANALYSIS, create(criterion), fresh, scope=scope, **options).least_cut(Budget.of(kind, value))


@pytest.mark.parametrize("measured", [ERRORS, None])
def test_the_layer_that_can_spare_channels_loses_them(measured: CutErrors | None) -> None:
    first, second = plan(measured=measured).groups
    assert first.kept <= 16 and second.kept >= 24


def test_other_criteria_keep_their_order() -> None:
    found = plan(criterion="l1", measured=ERRORS)
    for group in found.groups:
        scores = create("l1").score(next(g for g in ANALYSIS.groups if g.id == group.id), ABOUT)
        assert not group.cut or scores[list(group.cut)].max() <= scores[group.keep()].min()


def test_it_loses_less_than_the_same_share_everywhere() -> None:
    uniform = plan("channels", 0.5, scope="layer")
    found = plan("flops", uniform.realised.flops, measured=ERRORS)
    assert found.realised.flops <= uniform.realised.flops

    def error(made: Plan) -> float:
        from prunec.passes.compensate import Options, compensate

        alive = ANALYSIS.alive(made.keeps())
        cut = slice_channels(MODEL, ANALYSIS, alive)
        return compensate(MODEL, cut, ANALYSIS, alive, Data(), Options(), None).error_chosen

    assert error(found) < 0.7 * error(uniform)


@pytest.mark.parametrize(("kind", "value"), [("flops", 0.61), ("params", 0.55), ("sparsity", 0.37), ("channels", 0.3)])
@pytest.mark.parametrize("measured", [ERRORS, None])
def test_budget_floor_and_widths_hold(kind: Any, value: float, measured: CutErrors | None) -> None:
    found = plan(kind, value, measured=measured)
    cut = slice_channels(MODEL, ANALYSIS, ANALYSIS.alive(found.keeps()))
    assert found.realised.flops == pytest.approx(model_macs(cut) / model_macs(MODEL), abs=1e-6)
    left = {"flops": found.realised.flops, "params": found.realised.params, "sparsity": 1 - found.realised.sparsity}
    kept = sum(g.kept for g in found.groups) / 64
    assert left.get(kind, kept) <= (value if kind in ("flops", "params") else 1 - value) + 1e-9
    assert all(g.kept % 8 == 0 and g.kept >= FLOORS["loss"] * g.size for g in found.groups)
    assert {g.why for g in found.groups} <= {"loss", "floor"}


def test_nothing_is_cut_that_the_budget_does_not_need() -> None:
    found = plan("flops", 0.61, measured=ERRORS)
    keeps = found.keeps()
    for group in found.groups:
        if group.cut:
            wider = {**keeps, group.id: keeps[group.id].copy()}
            wider[group.id][list(group.cut)[:8]] = True
            cut = slice_channels(MODEL, ANALYSIS, ANALYSIS.alive(wider))
            assert model_macs(cut) / model_macs(MODEL) > 0.61


def test_the_same_inputs_give_the_same_bytes() -> None:
    again = CutErrors(MODEL, ANALYSIS, Data(), 8)
    assert plan(measured=ERRORS).to_bytes() == plan(measured=again).to_bytes()


def test_a_group_without_a_covariance_is_named() -> None:
    about = context(chain())
    wide = {node: replace(own, covariance=None, limited="too wide") for node, own in about.statistics.items()}
    for statistics, is_noted in ((wide, True), (about.statistics, False)):
        fresh = replace(about, statistics=statistics, notes=[])
        planner = Planner(fresh.model, fresh.analysis, create("obs"), fresh, scope="loss")
        found = planner.least_cut(Budget.of("params", 0.8))
        assert found.realised.params <= 0.8
        assert any(note.startswith("[PC229]") for note in found.notes) == is_noted


def test_a_cheap_stretch_behind_an_expensive_one_is_reached() -> None:
    group = ANALYSIS.groups[0]
    losses = np.array([4.0, 0.0, 0.0, 8.0])  # best channel first: the worst one costs 8, the next two nothing
    ladder = Ladder(group, np.arange(4), losses, (4, 3, 2, 1))
    assert hull_rises(ladder) == pytest.approx([8 / 3, 8 / 3, 8 / 3])
    convex = Ladder(group, np.arange(4), np.array([9.0, 4.0, 2.0, 1.0]), (4, 3, 2, 1))
    assert hull_rises(convex) == pytest.approx([1, 2, 4])
