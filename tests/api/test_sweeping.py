"""--sweep, --pick, and budgets of time and quality together; times are known as in test_timing."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from prunec.api import planning, sweeping, timed, timing
from prunec.api.compilation import compile
from prunec.api.sweeping import picked, sweep
from prunec.diagnostics import GateError, PrunecError
from prunec.measure.shares import Candidate, Share
from prunec.plan.curve import Curve
from prunec.plan.plan import Plan
from tests.api.test_timing import Clock
from tests.api.test_timing import model as model
from tests.cli.helpers import prunec
from tests.graph.builder import Builder


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "Stopwatch", Clock)


@pytest.fixture(scope="module")
def folder(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A curve of four points."""
    path = tmp_path_factory.mktemp("sweep") / "curve"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "Stopwatch", Clock)
        sweep(model, 4, output=path, samples=40, cache=False)
    return path


def test_points_go_from_mild_to_the_narrowest_model(folder: Path) -> None:
    curve = Curve.load(folder)
    assert curve.is_whole and sorted(curve.plans) == [1, 2, 3, 4]
    plans = [curve.plans[n] for n in sorted(curve.plans)]
    shares = [plan.time.share for plan in plans if plan.time]
    drops = [plan.drop.drop for plan in plans if plan.drop]
    assert shares == sorted(shares, reverse=True) and len(set(shares)) == len(drops) == 4
    for asked, found in zip(curve.shares, shares, strict=True):
        assert found == pytest.approx(asked, rel=0.1)
    assert drops == sorted(drops) and 0 <= drops[0] < drops[-1]
    document = json.loads((folder / "curve.json").read_text())
    assert [point["best"] for point in document["points"]] == [True] * 4
    assert document["points"][3]["speedup"]["median"] == pytest.approx(1 / shares[3])
    page = (folder / "curve.html").read_text()
    assert "<script" not in page and page.count("<tr>") == 5 and "<svg" in page


def test_a_point_compiles_to_what_it_says(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prunec.api.saving._measured", lambda *_: None)
    plan = Plan.load(folder / "point-2.json")
    done = compile(model, plan=folder / "point-2.json", output=tmp_path / "out", cache=False)
    assert done.verification is not None and done.verification.quality is not None and plan.drop is not None
    assert done.verification.quality.drop == pytest.approx(plan.drop.drop, abs=1e-6)


class Counting(Clock):
    """Ends the sweep with Ctrl-C where it measures its `last`-th point with care."""

    last = 3
    careful = 0

    def shares(self, candidates: Sequence[Candidate], *, how: Any, **more: Any) -> list[Share]:
        if how is timed.SURE:
            type(self).careful += 1
            if type(self).careful == self.last:
                raise KeyboardInterrupt
        return super().shares(candidates, how=how, **more)


def test_an_interrupted_sweep_goes_on(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "Stopwatch", Counting)
    done = prunec("plan", model, "--sweep", 4, "-o", "curve", "--samples", 40, "--no-cache", cwd=tmp_path)
    assert done.code == 130 and "the same command goes on" in done.err
    half = Curve.load(tmp_path / "curve")
    assert sorted(half.plans) == [1, 2] and not half.is_whole
    curve, _ = sweep(model, 4, output=tmp_path / "curve", samples=40, cache=False)
    assert curve.is_whole and curve.plans[1] == half.plans[1] and Counting.careful == 5
    curve, _ = sweep(model, 4, output=tmp_path / "curve", samples=40, cache=False)
    assert curve.is_whole and Counting.careful == 5  # nothing is done again


def test_what_ends_a_sweep_says_that_its_points_stay(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*arguments: object, **options: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(sweeping, "sweep", ended)
    done = prunec("plan", model, "--sweep", 4, "-o", tmp_path / "curve", "--samples", 40, cwd=tmp_path)
    assert done.code == 143 and "the points that are done are in" in done.err and "nothing was" not in done.err


def test_a_folder_holds_one_curve(folder: Path, model: Path) -> None:
    with pytest.raises(PrunecError, match=r"PC232.*other options"):
        sweep(model, 4, output=folder, samples=41, cache=False)
    with pytest.raises(PrunecError, match=r"PC232.*other points"):
        sweep(model, 5, output=folder, samples=40, cache=False)


def test_from_the_command_line(folder: Path, model: Path, tmp_path: Path) -> None:
    done = prunec("plan", model, "--sweep", 4, "-o", folder, "--samples", 40, "--no-cache", "--json", cwd=tmp_path)
    assert done.code == 0 and len(done.json["points"]) == 4
    done = prunec("plan", model, "--pick", 3, "--from", folder, "-o", "plan.json", cwd=tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "plan.json").read_bytes() == (folder / "point-3.json").read_bytes()
    for arguments, code in (
        (("--pick", 9, "--from", folder), "PC232"), (("--pick", 1), "PC220"), (("--sweep", 4), "PC220"),
        (("--sweep", 4, "-o", "x", "--flops", 0.5), "PC220"),
        (("--pick", 1, "--from", folder, "--flops", 0.5), "PC220"),
        (("--sweep", 4, "-o", "x", "--pick", 1), "PC220"), (("--sweep", 1, "-o", "x"), "PC208"),
        (("--sweep", 4, "-o", "x", "--target", "tensorrt-2:4"), "PC230"), (("--pick", 1, "--from", "nowhere"), "PC232"),
    ):  # fmt: skip
        refused = prunec("plan", model, *arguments, cwd=tmp_path)
        assert refused.code == 2 and code in refused.err, refused.err
    assert not (tmp_path / "x").exists()


def test_a_curve_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    b = Builder(0)
    b.output(b.relu(b.conv(b.input("x", [1, 3, 8, 8]), 8, 3)))
    ir.save(b.model(), tmp_path / "other.onnx")
    with pytest.raises(PrunecError, match="PC205"):
        picked(tmp_path / "other.onnx", folder, 1)


def test_a_damaged_curve_is_refused(folder: Path, model: Path, tmp_path: Path) -> None:
    for text in ("{", "{}", '{"question": {}, "shares": []}'):
        (tmp_path / "curve.json").write_text(text)
        with pytest.raises(PrunecError, match="PC232"):
            picked(model, tmp_path, 1)


def test_time_and_quality_together(model: Path) -> None:
    alone = planning.plan(model, speedup=1.5, samples=40, cache=False).plan
    both = planning.plan(model, speedup=1.5, max_drop=0.9, samples=40, cache=False).plan
    assert both.groups == alone.groups and both.drop is not None and both.drop.drop <= 0.9 and alone.drop is None


def test_what_cannot_both_be_had_comes_with_the_best_compromise_and_the_curve(model: Path, tmp_path: Path) -> None:
    with pytest.raises(GateError, match=r"PC534.*both cannot be had") as caught:
        planning.plan(model, speedup=3, max_drop=0.003, samples=40, cache=False)
    details = caught.value.diagnostic.details
    assert details is not None
    assert details["reached"]["speedup"] >= 3 and details["reached"]["drop"] > 0.003
    measured = [point for point in details["curve"] if point["is_measured"]]
    assert measured == [details["reached"]] and details["compromise"]["is_measured"]
    assert 1 < details["compromise"]["speedup"] < 3 and details["compromise"]["drop"] <= 0.003
    speedups = [point["speedup"] for point in details["curve"]]
    assert len(speedups) > 3 and speedups == sorted(speedups)
    arguments = ("--speedup", 3, "--max-drop", 0.003, "--samples", 40, "--no-cache", "--json")
    done = prunec("compile", model, *arguments, "-o", "out", cwd=tmp_path)
    assert done.code == 1 and not (tmp_path / "out").exists()
    curve = done.json["error"]["details"]["curve"]
    assert done.json["error"]["code"] == "PC534" and curve
    rows = [line for line in done.err.splitlines() if "│ predicted │" in line or "│ measured  │" in line]
    assert len(rows) == len(curve) and "at most (90 %)" in done.err
