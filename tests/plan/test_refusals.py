"""What planning refuses: code, place and hint."""

from __future__ import annotations

from typing import Any

import pytest

from prunec.criteria import create
from prunec.diagnostics import Diagnostic, PrunecError
from prunec.plan.budget import Budget, BudgetKind
from prunec.plan.plan import Plan
from prunec.plan.planner import Planner
from tests.criteria.small import attention, chain, context, free, grouped
from tests.graph.builder import Builder

ABOUT = {"chain": context(chain()), "grouped": context(grouped()), "attention": context(attention())}


def plan(name: str, kind: BudgetKind = "channels", value: float = 0.5, **options: Any) -> Plan:
    about = ABOUT[name]
    return Planner(about.model, about.analysis, create("l1"), about, **options).least_cut(Budget.of(kind, value))


def refusal(name: str, *args: Any, **options: Any) -> Diagnostic:
    with pytest.raises(PrunecError) as caught:
        plan(name, *args, **options)
    return caught.value.diagnostic


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("sparsity", 1.0),
        ("sparsity", -0.1),
        ("params", 0.0),
        ("flops", 1.5),
        ("channels", 1.0),
        ("flops", float("nan")),
    ],
)
def test_a_share_out_of_range(kind: BudgetKind, value: float) -> None:
    found = refusal("chain", kind, value)
    assert (found.code, found.where) == ("PC208", f"--{kind}") and f"--{kind} 0.5" in (found.hint or "")


def test_an_impossible_budget_names_the_floor_and_a_budget_that_works() -> None:
    found = refusal("chain", "flops", 0.01, floor=0.5)
    assert found.code == "PC207" and found.where == "--flops 0.01"
    assert "% of the FLOPs can be removed here, because every group keeps at least 50%" in found.message
    nearest = float((found.hint or "").split()[1])
    made = plan("chain", "flops", nearest, floor=0.5)
    assert made.realised.flops <= nearest
    refusal("chain", "flops", nearest - 0.002, floor=0.5)


def test_an_impossible_budget_names_what_is_pinned_and_excluded() -> None:
    found = refusal("attention", "params", 0.1, exclude=[free(ABOUT["attention"].analysis)[0].id])
    assert "pinned" in found.message and "excluded" in found.message
    assert "exclude less" in (found.hint or "")


def test_a_model_with_nothing_to_cut() -> None:
    b = Builder()
    b.output(b.conv(b.input("x", [1, 3, 8, 8]), 16))
    about = context(b.model())
    with pytest.raises(PrunecError, match=r"at most 0 %.*1 of 1 groups.*graph output") as caught:
        Planner(about.model, about.analysis, create("l1"), about).least_cut(Budget.of("sparsity", 0.5))
    assert caught.value.diagnostic.code == "PC207" and "inspect" in (caught.value.diagnostic.hint or "")


@pytest.mark.parametrize("option", ["include", "exclude"])
def test_a_pattern_that_names_nothing_suggests_the_nearest(option: str) -> None:
    name = next(n.name or "" for n in ABOUT["chain"].model.graph if n.op_type == "Conv")
    found = refusal("chain", **{option: [name + "x"]})
    assert found.code == "PC206" and name in (found.hint or "")


def test_including_only_what_is_pinned_says_why_it_is() -> None:
    last = next(n.name or "" for n in ABOUT["chain"].model.graph if n.op_type == "Gemm")
    found = refusal("chain", include=[last])
    assert found.code == "PC206" and "graph output" in found.message


@pytest.mark.parametrize(("option", "value"), [("floor", 1.0), ("floor", -0.1), ("round_to", 0)])
def test_other_values_out_of_range(option: str, value: float) -> None:
    assert refusal("chain", **{option: value}).code == "PC208"


def test_an_excluded_layer_keeps_all_its_weights() -> None:
    about = ABOUT["chain"]
    second = [n.name or "" for n in about.model.graph if n.op_type == "Conv"][1]
    made = plan("chain", exclude=[second])
    assert all(not g.cut and g.why == "excluded" for g in made.groups)  # it consumes the first and makes the second
    first = plan("chain", include=[second])
    assert [bool(g.cut) for g in first.groups] == [False, True]
    assert made.exclude == (second,)


def test_patterns_match_tensors_ids_and_wildcards() -> None:
    weight = ABOUT["chain"].analysis.groups[0].producers()[0].tensor
    for pattern in (weight, "g0", "g[0]"):
        made = plan("chain", include=[pattern])
        assert [g.why for g in made.groups] == ["ratio", "excluded"]
    assert all(g.why == "excluded" for g in plan("chain", exclude=["conv*"]).groups)
