"""Training beside budgets of time, gates of quality, and orders of channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import prunec
from prunec.api import compilation, timing
from prunec.api.dump import Dump
from prunec.api.opening import open_model
from prunec.api.options import PlanOptions
from prunec.api.planning import make, open_data
from prunec.api.progress import silent
from prunec.api.pruning import prune
from prunec.graph.cost import model_macs
from tests.api.test_timing import Clock
from tests.api.test_timing import model as model
from tests.graph.builder import Builder

pytest.importorskip("torch", reason="needs the [torch] extra")
pytestmark = pytest.mark.torch


def batches(count: int, *shape: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal(shape).astype(np.float32)} for _ in range(count)]


def test_what_was_chosen_by_time_is_trained(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "Stopwatch", Clock)
    options = PlanOptions(speedup=2, calib=batches(16, 1, 3, 8, 8), recover="full", recover_minutes=0.01)
    options.check()
    opened, budget = open_model(model), options.required_budget()
    calibration = open_data(opened, options, budget)
    plan, _ = make(opened, calibration, options, budget, silent)
    assert plan.time is not None and plan.time.share <= 0.5 and plan.recovery is not None
    with Dump(None, force=False) as stages:
        found = prune(opened, plan, calibration, options, stages=stages, progress=silent)
    assert found.recovery is not None and found.recovery.record.runs and found.exactness.passed
    assert found.plan.time == plan.time and found.plan.recovery is not None and found.plan.recovery.runs
    assert model_macs(found.model) == pytest.approx(plan.realised.flops * model_macs(opened.canonical), rel=1e-6)


def test_a_drop_beside_a_time_is_a_gate_for_what_training_left(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search would look at models that are not trained yet."""
    sought: list[Any] = []

    def decided(*arguments: Any) -> Any:
        sought.append(arguments[6])
        raise KeyboardInterrupt

    monkeypatch.setattr(compilation, "_decide", decided)
    for own, expected in (({"recover": "full"}, None), ({}, 0.1)):
        with pytest.raises(KeyboardInterrupt):
            prunec.compile(str(model), speedup=2, max_drop=0.1, **own)  # type: ignore[arg-type]
        assert sought.pop() == expected


def test_reordered_channels_are_trained_and_replayed(tmp_path: Path) -> None:
    """Columns that matter lie four by four, so that 2:4 would lose half of them where they are."""
    b = Builder(0)
    scale = np.where(np.arange(32) // 4 % 2, 0.05, 1.0).astype(np.float32)
    hidden = b.relu(b.gemm(b.input("x", [8, 16]), 32))
    weight = b.const(b.rng.standard_normal((16, 32)).astype(np.float32) * scale)
    b.output(b.gemm(b.relu(b.op("Gemm", [hidden, weight], transB=1)), 8))
    ir.save(b.model(), tmp_path / "model.onnx")
    own: dict[str, Any] = {"calib": batches(8, 8, 16), "measure": False, "cache": False}
    found = prunec.compile(
        str(tmp_path / "model.onnx"), pattern="2:4", permute=True, recover="bias", recover_minutes=0.005,
        output=tmp_path / "out", include=["*"], **own,
    )  # fmt: skip
    assert found.plan.permutation is not None and found.plan.recovery is not None and found.plan.recovery.runs
    assert found.verification is not None and found.verification.recovery is not None
    patterns = found.verification.patterns
    assert patterns is not None and patterns.passed and patterns.permutation is not None
    model = str(tmp_path / "model.onnx")
    prunec.compile(model, plan=tmp_path / "out/plan.json", output=tmp_path / "again", **own)
    for name in ("model.onnx", "plan.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert prunec.verify(tmp_path / "out", source=model, calib=own["calib"]).exactness is not None
