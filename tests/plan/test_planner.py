"""Properties of plans: budgets are met on the cut model, floors and widths hold, larger budgets keep supersets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunec.criteria import create
from prunec.diagnostics import PrunecError
from prunec.graph.cost import model_macs, parameter_count
from prunec.passes.slice_channels import slice_channels
from prunec.plan.budget import Budget, BudgetKind
from prunec.plan.plan import Plan, Scope
from prunec.plan.planner import FLOORS, Planner
from prunec.plan.replay import check_plan
from prunec.plan.shares import prunable_weights
from tests.criteria.small import attention, branches, chain, context, grouped
from tests.graph.builder import Builder


def wide(*, seed: int = 0) -> ir.Model:
    """Groups of 96, 64, 24, 20 and 40 channels."""
    b = Builder(seed)
    x = b.relu(b.conv(b.input("x", [1, 3, 8, 8]), 96))
    y = b.relu(b.conv(x, 64))
    y = b.op("Concat", [b.relu(b.conv(y, 24)), b.relu(b.conv(y, 20, 1)), x], axis=1)
    y = b.op("GlobalAveragePool", [b.relu(b.conv(y, 40))])
    b.output(b.gemm(b.reshape(y, [1, 40]), 10))
    return b.model()


CONTEXTS = {f.__name__: context(f()) for f in (chain, grouped, branches, attention, wide)}
KINDS = st.sampled_from(["sparsity", "params", "flops"])
SCOPES = st.sampled_from(["layer", "global", "loss"])
some_plans = settings(max_examples=40, deadline=None, derandomize=True)


def plan(name: str, kind: BudgetKind, value: float, criterion: str = "l1", **options: Any) -> Plan:
    about = CONTEXTS[name]
    fresh = replace(about, notes=[])
    return Planner(about.model, about.analysis, create(criterion), fresh, **options).least_cut(Budget.of(kind, value))


def possible_plan(name: str, kind: BudgetKind, value: float, criterion: str, **options: Any) -> Plan | None:
    """None where the budget cannot be met; any other refusal is a failure."""
    try:
        return plan(name, kind, value, criterion, **options)
    except PrunecError as error:
        if error.diagnostic.code != "PC207":
            raise
        return None


def cut(name: str, made: Plan) -> ir.Model:
    about = CONTEXTS[name]
    return slice_channels(about.model, about.analysis, about.analysis.alive(made.keeps()))


def weights(model: ir.Model, names: frozenset[str]) -> int:
    return sum(int(np.prod(model.graph.initializers[name].shape.numpy())) for name in names)


@some_plans
@given(name=st.sampled_from(sorted(CONTEXTS)), kind=KINDS, scope=SCOPES, value=st.floats(0.35, 0.95))
def test_the_cut_model_meets_the_budget_and_the_plan_says_by_how_much(
    name: str, kind: BudgetKind, scope: Scope, value: float
) -> None:
    about = CONTEXTS[name]
    asked = value if kind != "sparsity" else 1 - value
    made = possible_plan(name, kind, asked, "random", scope=scope)
    if made is None:
        return
    small = cut(name, made)
    params = parameter_count(small) / parameter_count(about.model)
    flops = model_macs(small) / model_macs(about.model)
    prunable = prunable_weights(about.model, [g for g in about.analysis.groups if g.pinned is None and g.size > 1])
    gone = 1 - weights(small, prunable) / weights(about.model, prunable)
    assert {"params": params, "flops": flops, "sparsity": 1 - gone}[kind] <= value + 1e-9
    shown = made.realised
    assert (shown.params, shown.flops, shown.sparsity) == pytest.approx((params, flops, gone), abs=2e-6)


@some_plans
@given(name=st.sampled_from(sorted(CONTEXTS)), scope=SCOPES, value=st.floats(0, 0.9), floor=st.floats(0, 0.6))
def test_every_group_keeps_its_floor_and_a_width_the_target_likes(
    name: str, scope: Scope, value: float, floor: float
) -> None:
    made = possible_plan(name, "channels", value, "random", scope=scope, floor=floor)
    assert made is not None or scope != "layer"
    if made is None:
        return
    groups = {g.id: g for g in CONTEXTS[name].analysis.groups}
    for group in made.groups:
        assert group.kept >= max(1, floor * group.size)
        if group.cut:
            for member in groups[group.id].producers():
                own = member.index >= 0
                width = int(group.keep()[member.index[own]].sum())
                whole_steps = own.sum() >= 32 and name != "branches"  # one slice there is narrow
                assert width % (8 if whole_steps else 4) == 0


@some_plans
@given(name=st.sampled_from(sorted(CONTEXTS)), scope=st.sampled_from(["layer", "global"]), kind=KINDS, data=st.data())
def test_a_larger_budget_keeps_a_superset(name: str, scope: Scope, kind: BudgetKind, data: st.DataObject) -> None:
    low, high = sorted(data.draw(st.lists(st.floats(0.5, 0.99), min_size=2, max_size=2)))
    if kind == "sparsity":
        low, high = 1 - low, 1 - high
    tight, loose = (possible_plan(name, kind, v, "obs", scope=scope) for v in (low, high))
    assert tight is None or loose is not None
    if tight is not None and loose is not None:
        for group, kept in tight.keeps().items():
            assert not (kept & ~loose.keeps()[group]).any()


@pytest.mark.parametrize("scope", ["layer", "global", "loss"])
@pytest.mark.parametrize("name", sorted(CONTEXTS))
def test_the_same_inputs_give_the_same_bytes_and_replay_gives_the_same_masks(
    name: str, scope: Scope, tmp_path: Any
) -> None:
    about = CONTEXTS[name]
    made, again = (plan(name, "params", 0.7, "wanda", scope=scope) for _ in range(2))
    assert made.to_bytes() == again.to_bytes() and made.hash() == again.hash()
    made.save(tmp_path / "plan.json")
    loaded = Plan.load(tmp_path / "plan.json")
    assert check_plan(loaded, about.model.clone(), about.analysis).to_bytes() == made.to_bytes()
    for group, mask in loaded.keeps().items():
        assert np.array_equal(mask, made.keeps()[group])


def test_uniform_cuts_the_same_share_everywhere() -> None:
    made = plan("wide", "channels", 0.5)
    assert {g.size: g.kept for g in made.groups} == {96: 48, 64: 32, 24: 12, 20: 8, 40: 16}
    assert all(g.why == "ratio" and g.requested == 0.5 for g in made.groups)


def test_the_least_important_channels_go() -> None:
    about = CONTEXTS["wide"]
    made = plan("wide", "channels", 0.5, "wanda")
    for group in made.groups:
        scores = create("wanda").score(next(g for g in about.analysis.groups if g.id == group.id), about)
        assert scores[list(group.cut)].max() <= scores[group.keep()].min()


def test_a_global_threshold_separates_all_groups_up_to_rounding() -> None:
    made = plan("wide", "flops", 0.5, "random", scope="global", normalise="none", round_to=1, floor=0.0)
    about = CONTEXTS["wide"]
    scores = {g.id: create("random").score(g, about) for g in about.analysis.groups if g.pinned is None}
    cut_ = np.concatenate([scores[g.id][list(g.cut)] for g in made.groups])
    kept = np.concatenate([scores[g.id][g.keep()] for g in made.groups])
    assert cut_.max() <= kept.min()
    assert {g.why for g in made.groups} == {"threshold"}


def test_a_global_threshold_stops_at_the_floor() -> None:
    made = plan("wide", "params", 0.2, "lamp", scope="global", normalise="none")
    floors = [g for g in made.groups if g.why == "floor"]
    assert floors and all(g.kept >= FLOORS["global"] * g.size for g in made.groups)


def test_no_budget_at_all_cuts_nothing() -> None:
    for kind, value in (("flops", 1.0), ("sparsity", 0.0), ("channels", 0.0)):
        made = plan("wide", kind, value)
        assert not any(g.cut for g in made.groups)
        assert made.realised.params == made.realised.flops == 1 and made.realised.sparsity == 0


def test_every_slice_of_a_split_keeps_channels_and_its_own_width() -> None:
    about = CONTEXTS["branches"]
    for scope in ("layer", "global", "loss"):
        made = plan("branches", "channels", 0.6, "random", scope=scope, floor=0.0)
        split = next(g for g in made.groups if g.size == 64)
        left, right = split.keep()[:40].sum(), split.keep()[40:].sum()
        assert left > 0 and right > 0 and left % 8 == 0 and right % 4 == 0
        assert not about.analysis.empty_axes(about.analysis.alive(made.keeps()))


def test_notes_of_the_criterion_are_in_the_plan() -> None:
    b = Builder()
    x = b.input("x", [1, 6, 16])
    b.output(b.op("MatMul", [b.linear(x, 32), b.op("Transpose", [b.linear(x, 32)], perm=[0, 2, 1])]))
    about = context(b.model())
    made = Planner(about.model, about.analysis, create("wanda"), about).least_cut(Budget.of("channels", 0.5))
    assert len(made.notes) == 1 and made.notes[0].startswith("[PC212]")
