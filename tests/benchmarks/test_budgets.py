"""The table of budgets: a machine whose times are known, a small model in the place of those of the zoo."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from benchmarks import budgets
from benchmarks.budget_plot import write_plots
from benchmarks.budget_rows import Row, curve_rows, drop_row, polish_rows, prediction_rows, speed_rows, unseen_drop
from benchmarks.budget_subject import BLOCKS, BudgetSubject
from prunec.api import timing
from prunec.api.opening import open_model
from prunec.backends.onnx.session import make_session, run
from prunec.frontend.calibration import open_calibration
from prunec.verify.user_metric import evaluate
from tests.api.test_timing import Clock
from tests.api.test_zero_timing import machine as machine
from tests.api.test_zero_timing import model as model
from tests.graph.builder import Builder

Run = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


def inputs(samples: int, seed: int) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(seed)
    return [{"x": random.standard_normal((1, 3, 8, 8)).astype(np.float32)} for _ in range(samples)]


def metric(run: Run, *, samples: int | None = None) -> float:
    """Share of places where the channel that answers most is the dense model's."""
    wanted = metric.dense  # type: ignore[attr-defined]
    found = [next(iter(run(feeds).values())).argmax(axis=1) for feeds in inputs(samples or 20, 9)]
    return float(np.mean([(one == other).mean() for one, other in zip(found, wanted, strict=False)]))


class Known:
    """What `benchmarks.subject.Subject` has."""

    def __init__(self, path: Path) -> None:
        self.name, self.seed, self.threads, self.metric, self.dense = "known", 0, 1, "metric", 1.0
        self.opened = open_model(path)
        self.calibration = open_calibration(inputs(24, 5), self.opened.canonical, samples=24)
        self.found = SimpleNamespace(metric=f"{__name__}:metric", entry=SimpleNamespace(static_inputs={}))
        session = make_session(path)
        answers = [next(iter(run(session, feeds).values())).argmax(axis=1) for feeds in inputs(40, 9)]
        metric.dense = answers  # type: ignore[attr-defined]

    def judge(self, model: ir.Model) -> float:
        return self.numbers(metric, model)["metric"]

    def numbers(self, own: Any, model: ir.Model) -> dict[str, float]:
        session = make_session(model)
        found = evaluate(own, lambda feeds: run(session, feeds), samples=None)
        return {"metric": next(iter(found.values()))}


@pytest.fixture
def subject(model: Path, monkeypatch: pytest.MonkeyPatch) -> Known:
    monkeypatch.setattr(timing, "Stopwatch", Clock)
    return Known(model)


@pytest.mark.parametrize("target", ["onnx", "cpu"])
def test_every_way_gets_the_same_time(subject: Known, target: str) -> None:
    own: Any = BudgetSubject(subject, target, solver="fast")  # type: ignore[arg-type]
    ways = {"onnx": ("loss", "uniform"), "cpu": ("loss", "uniform", "ERK")}[target]
    rows = [next(speed_rows(own, way, [2.0])) for way in ways]
    for row in rows:
        assert row.share is not None and 0.8 / 2 < row.share <= 1 / 2 and row.low == row.share == row.high
        assert row.drop is not None and row.error is not None and 0 < row.error < 2 and row.drop > 0
        assert row.macs is not None and 0 < row.macs < 0.7 and row.minutes is not None and row.models
    (refused,) = speed_rows(own, "uniform", [50.0])
    assert refused.share is None and "not more" in refused.note


def test_a_sweep_ends_with_all_that_may_go(subject: Known, tmp_path: Path) -> None:
    own: Any = BudgetSubject(subject, "cpu", solver="fast")  # type: ignore[arg-type]
    rows = list(curve_rows(own, "uniform", 2))
    shares = [row.share for row in rows if row.share is not None]
    assert len(shares) == 2 and shares == sorted(shares, reverse=True) and shares[0] < 0.8
    (path,) = write_plots(rows, tmp_path)
    page = path.read_text()
    assert path.name == "curve-known-cpu.svg" and page.startswith("<svg") and page.count("<circle") == 2
    assert "http://www.w3.org/2000/svg" in page and "uniform 2" in page
    beside = Row("crepe-tiny", "onnx", "loss", 2.0, 0.5, 0.45, 0.55, drop=0.1)
    (path,) = write_plots([beside], tmp_path / "beside")
    assert path.read_text().count("<circle") == 3 and "Torch-Pruning, 50 %" in path.read_text()
    assert not write_plots([Row("m", "onnx", "loss", 9.0, note="refused")], tmp_path / "none")


def test_a_drop_is_looked_at_on_what_nobody_has_seen(subject: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    own: Any = BudgetSubject(subject, "onnx")  # type: ignore[arg-type]
    row = drop_row(own, 0.2, 20, 40)
    assert row.drop is not None and row.upper is not None and row.drop <= row.upper <= 0.2
    assert row.speedup is not None and row.speedup > 1 and row.unseen is not None and row.others == 40
    assert row.note in ("loss", "layer", "global")
    tried = [float(one.split(":")[0]) for one in row.tried.split("; ")]
    assert len(tried) >= 2 and tried == sorted(tried) and f"{row.drop:.3g} ≤ {row.upper:.3g}" in row.tried
    monkeypatch.setattr(Clock, "noise", 50.0)
    refused = drop_row(own, 0.2, 20, 40)
    assert refused.speedup is None and "what keeps the quality is too little faster" in refused.note and refused.tried


def test_what_is_unseen_is_worked_out_from_both_halves() -> None:
    assert unseen_drop(0.03, 0.01, 1000, 1000) == pytest.approx(0.05)
    assert unseen_drop(0.03, 0.01, 1000, 3000) == pytest.approx(0.11 / 3)


def test_predictions_are_held_against_what_came_out(subject: Known) -> None:
    own: Any = BudgetSubject(subject, "cpu", solver="fast")  # type: ignore[arg-type]
    rows = list(prediction_rows(own, 6))
    assert [row.losses for row in rows] == ["masked", "solved", "zeroth-order"]
    for row in rows:
        assert row.choices == rows[0].choices >= 5 and row.time_rank > 0.95 and row.time_error < 0.1
        assert row.loss_shown > 0.5 and row.factor > 0 and row.own_error > 0
    masked, solved, _ = rows
    assert solved.factor < masked.factor and solved.factor_screen < masked.factor_screen


def test_what_swaps_add_is_measured(subject: Known) -> None:
    own: Any = BudgetSubject(subject, "onnx")  # type: ignore[arg-type]
    (row,) = polish_rows(own, [2.0], 2)
    assert row.polished_error <= row.error and row.share <= 0.5 and row.polished_share <= 0.5 and row.judged == 3


def test_a_model_without_blocks_has_a_row_that_says_so(subject: Known) -> None:
    own: Any = BudgetSubject(subject, "onnx")  # type: ignore[arg-type]
    (row,) = speed_rows(own, BLOCKS, [2.0])
    assert row.share is None and "no residual block" in row.note


def test_rows_are_kept_and_no_model_is_opened_for_them(
    subject: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []

    def open_subject(name: str, **_: Any) -> Known:
        opened.append(name)
        return subject

    monkeypatch.setattr(budgets, "Subject", open_subject)
    arguments = ["budgets", "speed", "known", "--ways", "uniform", "--speedups", "2", "--no-cache"]
    arguments += ["--keep", str(tmp_path / "rows.json"), "--markdown", str(tmp_path / "rows.md")]
    monkeypatch.setattr(sys, "argv", arguments)
    assert budgets.main() == 0
    first = capsys.readouterr().out
    assert budgets.main() == 0
    assert capsys.readouterr().out == first and opened == ["known"]
    assert (tmp_path / "rows.md").read_text().count("\n") == 3


def test_what_is_left_is_counted_at_the_shapes_that_are_timed(tmp_path: Path) -> None:
    """A layer over 64 places with half of its weights, and one that costs next to nothing with all of them."""
    b = Builder(0)
    x = b.input("x", ["n", 3, "h", "w"])
    y = b.conv(b.relu(b.conv(x, 32)), 32)
    b.output(b.conv(str(b.op("GlobalAveragePool", [y])), 8, 1))
    ir.save(b.model(), tmp_path / "model.onnx")
    opened = open_model(tmp_path / "model.onnx")
    known: Any = SimpleNamespace(opened=opened, found=SimpleNamespace(path=tmp_path / "model.onnx"))
    own = BudgetSubject(known, "cpu", shapes={"x": (1, 3, 8, 8)})
    _, wide, _ = (node.name for node in opened.canonical.graph if node.op_type == "Conv")
    plan: Any = SimpleNamespace(layers=[SimpleNamespace(node=wide, level=0.5, pattern="block:16x1")])
    stem, middle, head = 64 * 9 * 3 * 32, 64 * 9 * 32 * 32, 8 * 32
    assert own.macs(plan) == pytest.approx((stem + middle / 2 + head) / (stem + middle + head))
    stem, middle = stem // 64, middle // 64
    assert own.weights(plan) == pytest.approx((stem + middle / 2 + head) / (stem + middle + head))
