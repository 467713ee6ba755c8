"""Ways to spread what goes beside each other; times are known as in test_zero_timing, and losses may mislead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunec.api import contest, planning, zero_timing
from prunec.api.choices import Judge
from prunec.api.plan_explanation import explain_plan
from prunec.cli.plan import compared
from prunec.diagnostics import GateError
from prunec.plan.budget import Budget
from prunec.plan.layers import DENSE
from prunec.plan.plan import Plan
from prunec.statistics.output_errors import OutputErrors
from tests.api.test_zero_timing import machine as machine
from tests.api.test_zero_timing import network


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return network(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture
def misled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses that take one half of the layers to lose nothing, whatever goes of them."""
    real = zero_timing.loss_curves

    def wrong(layers: Any, model: Any, pattern: Any, allocation: str, *arguments: Any) -> Any:
        found = real(layers, model, pattern, allocation, *arguments)
        if allocation != "loss":
            return found
        spared = list(layers)[::2]
        curves = {name: own * (1e-6 if name in spared else 1) for name, own in found.curves.items()}
        return type(found)(curves, found.losses, found.sizes, found.inputs)

    monkeypatch.setattr(zero_timing, "loss_curves", wrong)


def plan(model: Path, **options: Any) -> Plan:
    return planning.plan(model, target="cpu", samples=40, solver="fast", cache=False, **options).plan


def test_losses_that_mislead_are_found_out(model: Path, misled: None) -> None:
    found, own = plan(model, speedup=2), plan(model, speedup=2, allocation="loss")
    first, *_ = found.contest
    errors = {one.way: one.error for one in found.contest}
    assert [one.way for one in found.contest] == ["loss", *zero_timing.OTHERS] and not own.contest
    assert found.allocation == min(errors, key=lambda name: errors[name] or np.inf) != "loss"
    assert found.time is not None and found.time.share <= 1 / 2 and found.losses is None
    assert all(first.share - 0.03 < one.share <= first.share + 1e-4 for one in found.contest)
    levels = {layer.level for layer in own.layers if layer.pattern != DENSE}
    assert first.error is not None and max(levels) == zero_timing.FINE[-1]
    assert first.error > 1.3 * (errors[found.allocation] or np.inf)


def test_what_is_hardly_better_changes_nothing(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contest, "CLEARLY", 0.0)
    found = plan(model, speedup=2)
    own = plan(model, speedup=2, allocation="loss")
    assert found.allocation == "loss" and found.layers == own.layers and len(found.contest) == 4


@pytest.mark.parametrize("asked", [{"allocation": "erk"}, {"losses": "zeroth-order"}])
def test_who_asks_for_a_way_gets_it(model: Path, asked: dict[str, str]) -> None:
    assert not plan(model, speedup=2, **asked).contest


def test_a_drop_goes_on_with_the_better_way(model: Path, misled: None) -> None:
    best, own = plan(model, max_drop=0.0005), plan(model, max_drop=0.0005, allocation="loss")
    assert best.time is not None and own.time is not None and best.drop is not None and own.drop is not None
    assert best.time.share < own.time.share and best.drop.drop <= 0.0005 and best.allocation != "loss"
    assert best.drop.trials > own.drop.trials and best.contest


def test_a_way_that_cannot_be_met_is_passed_over(
    model: Path, misled: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    winner, real = plan(model, speedup=2).allocation, zero_timing.TimedZeros.meet

    def meet(self: zero_timing.TimedZeros, *arguments: Any) -> Any:
        if self._allocation == winner:
            raise GateError("PC527", "the fastest of 5 choices takes 60% of the dense model's time")
        return real(self, *arguments)

    monkeypatch.setattr(zero_timing.TimedZeros, "meet", meet)
    found = plan(model, speedup=2)
    assert found.allocation not in (winner, "loss") and winner in [one.way for one in found.contest]
    monkeypatch.setattr(contest.Contest, "_error", lambda self, made: 1.0 if made.allocation == "loss" else np.nan)
    lost = plan(model, speedup=2)
    assert lost.allocation == "loss" and [one.error for one in lost.contest] == [1.0, None, None, None]
    told = compared(lost.contest, lost.allocation, lost.scope)
    assert "least first: loss 1 at 49.9 %, uniform not finite at " in told
    lost.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == lost


def test_the_plan_says_what_was_compared(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    planning.plan(model, target="cpu", samples=40, solver="fast", cache=False, speedup=2, output=path)
    found = Plan.load(path)
    explained = explain_plan(path)
    assert explained.contest == found.contest and explained.allocation == found.allocation
    told = compared(found.contest, found.allocation, found.scope)
    assert told.startswith(f"Zeros are spread by {found.allocation}. ") and all(w in told for w in zero_timing.OTHERS)


def test_a_plan_with_the_older_name_of_a_way_is_read(model: Path, tmp_path: Path) -> None:
    found = plan(model, speedup=2)
    text = found.to_bytes().decode()
    assert text.count('"way"') == 4
    (tmp_path / "old.json").write_text(text.replace('"way"', '"allocation"'))
    assert Plan.load(tmp_path / "old.json") == found


def test_a_choice_that_is_not_finite_loses(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[float]()

    class Errors(OutputErrors):
        def of(self, model: Any) -> float:
            asked.append(super().of(model) if asked else np.nan)
            return asked[-1]

    monkeypatch.setattr(contest, "OutputErrors", Errors)
    own, found = plan(model, speedup=2, allocation="loss"), plan(model, speedup=2)
    first, *others = found.contest
    assert first.way == "loss" and first.error is None and found.allocation != "loss" and found.layers != own.layers
    assert any(one.error is not None for one in others)


def test_swaps_keep_what_was_compared(model: Path, misled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    found = plan(model, speedup=2, polish=2)
    assert found.polish is not None and found.contest and found.polish.after <= found.polish.before


def test_where_nothing_goes_nothing_is_compared(model: Path) -> None:
    """The generated code alone is as fast as that."""
    found = plan(model, speedup=1.2)
    assert not any(layer.level for layer in found.layers) and not found.contest


def test_equal_choices_are_solved_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    solved, real = list[Plan](), Judge.model
    monkeypatch.setattr(Judge, "model", lambda self, plan: solved.append(plan) or real(self, plan))
    found = plan(model, speedup=2)
    errors = [one.error for one in found.contest]
    assert len(solved) == len({tuple(layer.level for layer in one.layers) for one in solved}) < len(errors)


def test_a_better_way_within_a_drop_need_not_be_faster(
    model: Path, misled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing faster passes: the better way at the same time is taken, and what it drops is said."""
    from prunec.api.dropping import DropPlanner

    real = DropPlanner._found

    def found(self: DropPlanner, budget: Budget, slowest: float) -> Any:
        if slowest < 1:
            raise GateError("PC530", "nothing")
        return real(self, budget, slowest)

    monkeypatch.setattr(DropPlanner, "_found", found)
    best, own = plan(model, max_drop=0.0005), plan(model, max_drop=0.0005, allocation="loss")
    assert best.time is not None and own.time is not None and best.drop is not None and best.allocation != "loss"
    assert best.time.share <= own.time.share and best.drop.drop <= 0.0005
