"""Scopes beside each other at one time; times are known as in test_timing, and losses may mislead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunec.api import planning, timing
from prunec.api.choices import Judge
from prunec.api.compilation import compile
from prunec.api.plan_explanation import explain_plan
from prunec.cli.plan import compared
from prunec.plan.plan import Plan
from tests.api.test_polishing import misled as misled
from tests.api.test_timing import Clock
from tests.api.test_timing import model as model


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "Stopwatch", Clock)


def plan(model: Path, **options: Any) -> Plan:
    return planning.plan(model, samples=24, cache=False, **options).plan


def test_losses_that_mislead_are_found_out(model: Path, misled: None, tmp_path: Path) -> None:
    found, own = plan(model, speedup=2, output=tmp_path / "plan.json"), plan(model, speedup=2, scope="loss")
    assert [one.way for one in found.contest] == ["loss", "layer", "global"] and not own.contest
    errors = {one.way: one.error or np.inf for one in found.contest}
    assert found.scope == min(errors, key=lambda way: errors[way]) != "loss"
    assert errors[found.scope] < errors["loss"] / 1.3 and own.scope == "loss"
    assert found.time is not None and found.time.share <= 1 / 2 and found.groups != own.groups
    first, *others = found.contest
    assert all(one.share <= first.share + 1e-4 for one in others)
    read, explained = Plan.load(tmp_path / "plan.json"), explain_plan(tmp_path / "plan.json")
    assert read == found and explained.contest == found.contest
    assert (explained.scope, explained.allocation) == (found.scope, None)
    told = compared(found.contest, explained.allocation, explained.scope)
    assert told.startswith(f"Widths are chosen by scope {found.scope}. ") and "loss 0." in told


def test_the_same_share_of_every_group_goes(model: Path, misled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "OTHERS", ("layer",))
    found = plan(model, speedup=2)
    goes = [1 - group.kept / group.size for group in found.groups if group.cut]
    assert found.scope == "layer" and len(goes) == 3 and max(goes) - min(goes) < 0.2
    assert all(group.requested == pytest.approx(len(group.cut) / group.size) for group in found.groups)
    assert {group.why for group in found.groups if group.cut} == {"ratio"}


def test_what_loses_least_stays(model: Path) -> None:
    found, own = plan(model, speedup=2), plan(model, speedup=2, scope="loss")
    assert found.scope == "loss" and found.groups == own.groups and len(found.contest) == 3


@pytest.mark.parametrize("asked", [{"scope": "layer"}, {"criterion": "l2"}, {"recipe": "obs"}])
def test_who_asks_for_a_way_gets_it(model: Path, asked: dict[str, str]) -> None:
    assert not plan(model, speedup=2, **asked).contest


def test_equal_choices_are_refitted_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refitted, real = list[Plan](), Judge.model
    monkeypatch.setattr(Judge, "model", lambda self, plan: refitted.append(plan) or real(self, plan))
    plan(model, speedup=2)
    assert len(refitted) == len({tuple(group.cut for group in one.groups) for one in refitted}) <= 3


def test_a_drop_goes_on_with_the_better_way(model: Path, misled: None) -> None:
    best, own = plan(model, max_drop=0.003), plan(model, max_drop=0.003, scope="loss")
    assert best.time is not None and own.time is not None and best.drop is not None and best.scope != "loss"
    assert best.time.share <= own.time.share and best.drop.drop <= 0.003 and best.contest


def test_a_compile_of_the_plan_is_what_was_judged(
    model: Path, misled: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan file alone decides: no other way is asked again."""
    monkeypatch.setattr("prunec.api.saving._measured", lambda *_: None)
    made = plan(model, speedup=2, output=tmp_path / "plan.json")
    found = compile(model, plan=tmp_path / "plan.json", samples=24, output=tmp_path / "out", cache=False)
    assert found.plan.groups == made.groups and found.plan.scope == made.scope and found.plan.contest == made.contest
