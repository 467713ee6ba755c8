"""--polish: what swaps make of a plan for a time; times are known as in test_timing and test_zero_timing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from prunec.api import planning, timed, timing
from prunec.api.choices import Judge
from prunec.diagnostics import PrunecError
from prunec.measure.shares import Candidate, Share
from prunec.plan.plan import Plan
from tests.api.test_timing import Clock
from tests.api.test_timing import model as model
from tests.api.test_zero_timing import machine as machine
from tests.api.test_zero_timing import network


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "Stopwatch", Clock)


@pytest.fixture
def misled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A knapsack that takes one layer to lose next to nothing, whatever goes of it."""
    own = timing.losses
    monkeypatch.setattr(timing, "losses", lambda ladder: own(ladder) * (1e-4 if ladder.size == 64 else 1))


def plan(model: Path, **options: Any) -> Plan:
    return planning.plan(model, samples=24, cache=False, **options).plan


def test_a_wrong_loss_is_made_up_for(model: Path, misled: None, tmp_path: Path) -> None:
    found = plan(model, speedup=2, scope="loss", polish=3, output=tmp_path / "plan.json")
    assert found.polish is not None and found.time is not None
    assert found.polish.after < found.polish.before / 2
    assert found.time.share <= 1 / 2 and found.polish.judged == 4
    assert Plan.load(tmp_path / "plan.json") == found


def test_zeros_are_polished_too(tmp_path: Path) -> None:
    found = plan(network(tmp_path / "model.onnx"), speedup=2, target="cpu", solver="fast", polish=1)
    assert found.polish is not None and found.polish.after <= found.polish.before
    assert found.time is not None and found.time.share <= 1 / 2


def test_swaps_of_solved_layers_are_judged_without_solving_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two models are refitted, what the knapsack chose and what the search found, and only the better one stays."""
    refitted, real = list[object](), Judge.model
    monkeypatch.setattr(Judge, "model", lambda self, plan: refitted.append(plan) or real(self, plan))
    found = plan(network(tmp_path / "model.onnx"), speedup=2, target="cpu", solver="fast", losses="solved", polish=3)
    assert found.polish is not None and found.polish.after <= found.polish.before and found.losses == "solved"
    assert found.polish.judged == len(refitted) <= 2 < found.polish.assembled
    assert found.time is not None and found.time.share <= 1 / 2


def test_what_turns_out_too_slow_is_not_taken(model: Path, misled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = plan(model, speedup=2, scope="loss")
    shares, careful = Clock.shares, list[int]()

    def slower(self: Clock, candidates: Sequence[Candidate], *, how: Mapping[str, float], **more: Any) -> list[Share]:
        found = shares(self, candidates, how=how)
        careful.extend([1] if how is timed.SURE else [])
        rise = 0.3 if len(careful) > 1 else 0.0
        return [Share(one.median + rise, one.ci95, one.dense_ms) for one in found]

    monkeypatch.setattr(Clock, "shares", slower)
    found = plan(model, speedup=2, scope="loss", polish=3)
    assert found.groups == plain.groups and found.polish is not None
    assert found.polish.after == found.polish.before


def test_it_goes_with_a_budget_of_time(model: Path) -> None:
    for options in ({"flops": 0.5}, {"max_drop": 0.1}):
        with pytest.raises(PrunecError, match=r"PC220.*goes with a budget of time"):
            plan(model, polish=2, **options)
    with pytest.raises(PrunecError, match="PC208"):
        plan(model, speedup=2, polish=-1)
