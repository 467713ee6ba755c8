"""Gates and options that are judged without running anything."""

from __future__ import annotations

import pytest

from prunec.api.gates import check_gates, gate_drop, refusals
from prunec.api.options import PlanOptions
from prunec.api.target_list import targets
from prunec.diagnostics import PrunecError
from prunec.plan.budget import Budget
from prunec.verify.records import QualityRecord


def quality(drop: float) -> QualityRecord:
    return QualityRecord(metric="accuracy", dense=0.9, pruned=0.9 - drop, drop=drop, data="user")


def test_a_drop_at_the_limit_passes_and_above_it_does_not() -> None:
    assert gate_drop(quality(0.01), 0.01) is None
    refusal = gate_drop(quality(0.011), 0.01)
    assert refusal is not None and refusal.diagnostic.code == "PC507" and refusal.exit_code == 1
    assert "0.9" in refusal.diagnostic.message and "accuracy" in refusal.diagnostic.message


def test_nothing_judged_and_nothing_measured_is_a_no() -> None:
    said_no = refusals(None, None, min_speedup=1.5, max_drop=0.01)
    assert [refusal.diagnostic.code for refusal in said_no] == ["PC507", "PC518"]
    assert refusals(None, None, min_speedup=None, max_drop=None) == []


def test_a_better_model_passes_every_drop() -> None:
    assert gate_drop(quality(-0.05), 0) is None


@pytest.mark.parametrize(
    ("min_speedup", "max_drop", "measures", "code"),
    [
        (1.5, None, False, "PC222"),
        (0, None, True, "PC208"),
        (None, -0.1, True, "PC208"),
        (float("nan"), None, True, "PC208"),
    ],
)
def test_gates_that_cannot_be_judged(
    min_speedup: float | None, max_drop: float | None, measures: bool, code: str
) -> None:
    with pytest.raises(PrunecError, match=code):
        check_gates(min_speedup=min_speedup, max_drop=max_drop, budget=None, measures=measures)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (PlanOptions(target="toaster"), "PC401"),
        (PlanOptions(pattern="block:4"), "PC215"),
        (PlanOptions(scope="model"), "PC208"),
        (PlanOptions(samples=0), "PC208"),
        (PlanOptions(threads=0), "PC208"),
        (PlanOptions(seed=-1), "PC208"),
    ],
)
def test_options_that_are_wrong_for_every_model(options: PlanOptions, code: str) -> None:
    with pytest.raises(PrunecError, match=code) as refusal:
        options.check()
    assert refusal.value.diagnostic.hint


def test_one_budget_and_only_one() -> None:
    assert PlanOptions(flops=0.5).required_budget().kind == "flops"
    assert PlanOptions().budget() is None
    for options in (PlanOptions(), PlanOptions(flops=0.5, params=0.5)):
        with pytest.raises(PrunecError, match="PC220"):
            options.required_budget()
    assert PlanOptions().required_budget(max_drop=0.01).kind == "max-drop"
    assert PlanOptions(flops=0.5).required_budget(max_drop=0.01).value == 0.5


@pytest.mark.parametrize("gate", [{"min_speedup": 1.5, "max_drop": None}, {"min_speedup": None, "max_drop": 0.1}])
def test_a_dry_run_has_no_model_to_judge(gate: dict[str, float | None]) -> None:
    for budget in (None, Budget.of("flops", 0.5)):
        with pytest.raises(PrunecError, match="PC222"):
            check_gates(**gate, budget=budget, measures=True, dry_run=True)


@pytest.mark.parametrize(
    ("budget", "max_drop", "is_refused"),
    [
        (Budget.of("max-drop", 0.1), 0.1, True),
        (Budget.of("speedup", 2), 0.1, False),
        (Budget.of("latency-ms", 5), 0.1, False),
        (Budget.of("speedup", 2), None, False),
        (Budget.of("flops", 0.5), 0.1, False),
        (None, 0.1, False),
    ],
)
def test_a_drop_that_is_looked_for_does_not_see_training(
    budget: Budget | None, max_drop: float | None, is_refused: bool
) -> None:
    """Training matters neither to the search for a time nor to a gate for the finished model."""
    gates = {"min_speedup": None, "max_drop": max_drop, "budget": budget, "measures": True}
    check_gates(**gates)  # type: ignore[arg-type]
    if not is_refused:
        check_gates(**gates, recovers=True)  # type: ignore[arg-type]
        return
    with pytest.raises(PrunecError, match="PC222") as refusal:
        check_gates(**gates, recovers=True)  # type: ignore[arg-type]
    assert refusal.value.diagnostic.where == "--recover"


def test_only_the_best_effort_looks_for_orders_by_itself() -> None:
    efforts = {"fast": False, "balanced": False, "best": True, "wanda": False, None: False}
    for solver, does in efforts.items():
        assert PlanOptions(pattern="2:4", solver=solver).permutes() is does
        assert PlanOptions(pattern="2:4", solver=solver, permute=True).permutes()


def test_a_replayed_plan_leaves_nothing_to_decide() -> None:
    PlanOptions(recipe="l2", calib="x.npz").check_replay()
    with pytest.raises(PrunecError, match="PC221") as refusal:
        PlanOptions(flops=0.5, exclude=("conv1",)).check_replay()
    assert "--flops, --exclude" in refusal.value.diagnostic.message


def test_every_target_that_is_listed_compiles() -> None:
    for target in targets().targets:
        assert target.status == "available"
        PlanOptions(target=target.name).check()
