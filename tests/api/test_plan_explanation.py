"""explain PLAN: every decision with its reason, from a plan for a time, one that counts, and a package."""

from __future__ import annotations

from pathlib import Path

import pytest

import prunec
from prunec.api import planning, timing
from prunec.api.plan_explanation import _module
from prunec.api.results import Decision, PlanExplanation
from prunec.diagnostics import PrunecError
from prunec.plan.layers import DENSE
from prunec.report import units
from tests.api.test_timing import Clock
from tests.api.test_timing import model as model
from tests.api.test_zero_timing import machine as machine
from tests.api.test_zero_timing import network
from tests.cli.helpers import prunec as command


def decisions(path: Path, name: str | None = None) -> tuple[Decision, ...]:
    found = prunec.explain(path, name)
    assert isinstance(found, PlanExplanation)
    return found.decisions


@pytest.fixture
def timed(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(timing, "Stopwatch", Clock)
    planning.plan(model, speedup=2, samples=16, cache=False, output=tmp_path / "plan.json")
    return tmp_path / "plan.json"


def test_widths_for_a_time(timed: Path) -> None:
    found = decisions(timed)
    cut = [one for one in found if one.kept < one.of]
    assert cut and {one.what for one in found} == {"channels"}
    for one in cut:
        assert one.loss is not None and one.loss > 0 and one.saved is not None and one.saved > 0
        assert one.milder is not None and one.milder.kept > one.kept
        assert one.milder.loss < 0 < one.milder.time
        assert one.deeper is None or (one.deeper.loss > 0 > one.deeper.time and one.deeper.kept < one.kept)
    (one,) = decisions(timed, cut[0].name)
    assert one == cut[0] and decisions(timed, cut[0].tensors[0]) == (one,)
    assert decisions(timed, _module(cut[0].tensors[0])) == (one,)


def test_layers_are_named_and_the_whole_is_told(timed: Path) -> None:
    shown = command("explain", timed, cwd=timed.parent)
    whole = prunec.explain(timed)
    assert isinstance(whole, PlanExplanation) and whole.time is not None
    assert all(one.tensors[0] in "".join(shown.out.split()) for one in whole.decisions)
    assert f"{1 - whole.time.share:.1%} of the dense model's time saved" in " ".join(shown.out.split())
    assert _module("blocks.1.conv.weight") == "blocks.1.conv" and _module("w") == "w"


def test_zeros_for_a_time(tmp_path: Path) -> None:
    layers = network(tmp_path / "model.onnx")
    planning.plan(layers, target="cpu", speedup=2, samples=40, cache=False, output=tmp_path / "plan.json")
    sparse = [one for one in decisions(tmp_path / "plan.json") if one.kept < 1]
    assert sparse and all("µs" in one.why and one.saved and one.loss for one in sparse)
    stem = decisions(tmp_path / "plan.json")[0]
    assert "stem" in stem.why and stem.loss is None and stem.kept == 1 and stem.what != DENSE


def test_a_counted_plan_has_reasons_and_no_numbers(model: Path, tmp_path: Path) -> None:
    planning.plan(model, flops=0.5, samples=16, cache=False, output=tmp_path / "plan.json")
    (tmp_path / "package").mkdir()
    (tmp_path / "plan.json").rename(tmp_path / "package" / "plan.json")
    found = decisions(tmp_path / "package")
    assert found and all(one.loss is None and one.why for one in found)


def test_at_the_command_line(timed: Path, tmp_path: Path) -> None:
    done = command("explain", timed, cwd=tmp_path)
    assert done.code == 0 and "milder" in done.out and "--speedup 2" in done.out
    document = command("explain", timed, "--json", cwd=tmp_path).json
    assert document["target"] == "onnx" and document["decisions"][0]["of"] == 32


def test_what_makes_no_sense_is_refused(timed: Path, tmp_path: Path) -> None:
    with pytest.raises(PrunecError, match=r"PC120.*nothing about 'nowhere'"):
        prunec.explain(timed, "nowhere")
    with pytest.raises(PrunecError, match="PC440"):
        prunec.explain(timed, target="cpu")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(PrunecError, match="PC204"):
        prunec.explain(tmp_path / "other.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PrunecError, match="PC204"):
        prunec.explain(tmp_path / "empty")


def test_a_plan_that_was_measured_says_how_long_it_took(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "Stopwatch", Clock)
    done = command("plan", model, "--speedup", 2, "--samples", 16, "--no-cache", cwd=tmp_path)
    assert done.code == 0 and "Planned in " in done.out and "Measured: " in done.out
    assert units.duration(41.26) == "41.3 s" and units.duration(204) == "3.40 min"
