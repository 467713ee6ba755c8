"""--max-drop as the budget: what is judged, with which margin, and what is taken; times are known as in test_timing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunec.api import planning, timing
from prunec.api.compilation import compile
from prunec.api.dropping import is_within
from prunec.api.gates import wide_drop
from prunec.api.pruning import Judged
from prunec.api.sample_count import samples_for_drop
from prunec.diagnostics import GateError, PrunecError
from prunec.verify.margins import Remembered
from prunec.verify.records import QualityRecord
from tests.api.test_timing import Clock
from tests.api.test_timing import model as model


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "Stopwatch", Clock)


def plan(model: Path, **options: Any) -> planning.Planned:
    return planning.plan(model, samples=40, cache=False, **options)


def test_the_drop_with_its_margin_is_within_what_is_allowed(model: Path) -> None:
    found = plan(model, max_drop=0.003).plan
    assert found.drop is not None and found.time is not None and found.drop.upper is not None
    assert found.drop.drop <= found.drop.upper <= 0.003
    assert found.time.ci95[1] < 1 and any(group.cut for group in found.groups)
    loose = plan(model, max_drop=0.05).plan
    assert loose.time is not None and loose.time.share < found.time.share
    assert found.drop.metric == "cosine" and found.drop.samples == 8


def test_a_compile_keeps_what_the_plan_found(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunec.api.saving._measured", lambda *_: None)
    found = compile(model, max_drop=0.05, samples=40, output=tmp_path / "out", cache=False)
    assert found.verification is not None and found.verification.quality is not None and found.plan.drop is not None
    assert found.verification.quality.drop == pytest.approx(found.plan.drop.drop, abs=1e-6)
    assert found.verification.sparsity is not None and found.verification.sparsity.requested is None


def test_a_dry_run_plans_for_a_drop(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunec.api.compilation.load_metric", lambda spec: lambda run: 20.0)
    found = compile(
        model, max_drop=0.05, metric="own:metric", samples=40, dry_run=True, output=tmp_path / "out", cache=False
    )
    assert found.plan.drop is not None and found.plan.drop.metric == "<lambda>"
    assert not (tmp_path / "out").exists()
    with pytest.raises(PrunecError, match="PC222"):
        compile(model, flops=0.5, max_drop=0.05, dry_run=True)


def test_no_gain_is_a_no(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GateError, match=r"PC530.*keeps the quality: what is predicted to be .* drops cosine by"):
        plan(model, max_drop=0.0)
    monkeypatch.setattr(Clock, "noise", 50.0)  # nothing is shown to be faster
    with pytest.raises(GateError, match=r"PC530.*told from noise: .* times as fast, 95 % interval"):
        plan(model, max_drop=0.05)


def test_the_users_metric_decides_where_it_is_given(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    def metric(run: Any) -> float:
        run({"x": np.zeros((1, 3, 8, 8), np.float32)})
        looks.append(1)
        return 20.0  # in a unit of its own, and never lower

    monkeypatch.setattr(planning, "load_metric", lambda spec: metric)
    found = plan(model, max_drop=0.01, metric="own:metric")
    assert len(looks) > 2 and found.plan.drop is not None and found.plan.drop.upper is None
    assert [warning.code for warning in found.warnings if warning.code == "PC231"] == ["PC231"]


def test_no_drop_at_all_can_be_asked_for(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No number of samples rules out every drop, so what changes nothing on them is taken, with a warning."""

    def metric(run: Any) -> float:
        run({"x": np.zeros((1, 3, 8, 8), np.float32)})
        return 0.9

    monkeypatch.setattr(planning, "load_metric", lambda spec: metric)
    found = plan(model, max_drop=0.0, metric="own:metric")
    assert found.plan.drop is not None and found.plan.drop.drop == 0 and any(group.cut for group in found.plan.groups)
    (warning,) = (warning for warning in found.warnings if warning.code == "PC231")
    assert "finer than 1 samples can show" in warning.message and warning.hint == "allow more"


def quality(drop: float, upper: float | None, samples: int | None) -> QualityRecord:
    return QualityRecord(
        metric="m", dense=1, pruned=1 - drop, drop=drop, drop_upper=upper, data="user", samples=samples
    )


def test_too_few_samples_must_show_no_drop_at_all() -> None:
    assert is_within(quality(0.0, 0.05, 40), 0.01)
    assert not is_within(quality(0.005, 0.05, 40), 0.01)
    assert not is_within(quality(0.0, 0.02, 1000), 0.01)  # enough of them: the margin decides
    assert is_within(quality(0.004, None, None), 0.01)
    assert not is_within(None, 1.0)


def test_a_finer_drop_takes_more_samples_up_to_a_limit() -> None:
    assert samples_for_drop(1024, 0.1) == 1024
    assert samples_for_drop(512, 0.01) == 5 * 230
    assert samples_for_drop(128, 0.001) == 4 * 128


def test_what_is_asked_of_nothing_is_refused(model: Path) -> None:
    with pytest.raises(PrunecError, match="PC220"):
        plan(model, flops=0.5, max_drop=0.1, metric="own:metric")
    with pytest.raises(PrunecError, match="PC222"):
        compile(model, max_drop=0.01, measure=False)
    for options in ({"structures": "depth"}, {"target": "cpu", "pattern": "channel"}):
        with pytest.raises(PrunecError, match="PC230"):
            plan(model, max_drop=0.01, **options)
    with pytest.raises(PrunecError, match="PC208"):
        plan(model, max_drop=-0.1)


def test_a_metric_that_nothing_is_judged_by_is_said(model: Path) -> None:
    found = plan(model, flops=0.5, metric="own:metric")
    assert [warning.code for warning in found.warnings if warning.where == "--metric"] == ["PC233"]


@pytest.mark.parametrize(("dense", "allowed", "warns"), [(0.93, 2.0, True), (93.0, 2.0, False), (0.93, 1.0, False)])
def test_a_drop_of_two_where_one_is_all_there_is(dense: float, allowed: float, warns: bool) -> None:
    own = Judged(lambda run: dense, {"accuracy": dense}, Remembered(lambda feeds: {}))
    found = wide_drop(allowed, own)
    assert bool(found) == warns and all("0.02 is 2 points" in (one.hint or "") for one in found)
