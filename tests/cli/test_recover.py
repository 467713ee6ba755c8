"""`--recover` from the command line: what a package says of it, and that its plan does the same again."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from prunec.api.options import PlanOptions
from prunec.api.training_options import planned_training
from prunec.plan.recovery import DEFAULT_MINUTES, RecoveryPlan, RecoveryRun
from tests.cli.helpers import prunec, refuses
from tests.graph.builder import Builder

COMMON = ("--calib", "data.npz", "--no-measure", "--samples", "40")
pytestmark = pytest.mark.torch


@pytest.fixture
def data(folder: Path) -> Path:
    x = np.random.default_rng(0).standard_normal((40, 3, 12, 12)).astype(np.float32)
    np.savez(folder / "data.npz", x=x + np.roll(x, 1, 2) + np.roll(x, 1, 3))
    return folder


def test_a_recovered_package_and_its_replay(data: Path) -> None:
    asked = ("--pattern", "2:4", "--solver", "magnitude", "--recover", "blocks", "--recover-minutes", "0.01")
    done = prunec("compile", "model.onnx", *asked, *COMMON, "-o", "out", "--dump", "dump", "--json", cwd=data)
    assert done.code == 0, done.err
    record = done.json["verification"]["recovery"]
    assert record["method"] == "blocks" and record["samples"] == 32 and record["runs"]
    assert record["kept"] == (record["error_after"] < record["error_before"])
    planned = json.loads((data / "out/plan.json").read_text())["recovery"]
    assert planned["minutes"] == 0.01
    assert planned["runs"] == [{"of": run["of"], "done": run["done"]} for run in record["runs"]]
    assert "minutes" not in (data / "out/manifest.json").read_text()
    assert ("--recover blocks" in (data / "out/README.txt").read_text()) == record["kept"]
    assert "Training against the dense model" in (data / "out/report.html").read_text()
    assert "--recover blocks --recover-minutes 0.01" in done.json["command"]
    assert done.json["verification"]["patterns"]["passed"]
    assert (data / "dump/model.onnx").read_bytes() == (data / "out/model.onnx").read_bytes()
    again = prunec("compile", "model.onnx", "--plan", "out/plan.json", *COMMON, "-o", "again", cwd=data)
    assert again.code == 0, again.err
    assert "training" in again.out.lower()
    for name in ("model.onnx", "plan.json", "manifest.json", "README.txt"):
        assert (data / "out" / name).read_bytes() == (data / "again" / name).read_bytes(), name
    assert prunec("verify", "out", "--source", "model.onnx", cwd=data).code == 0


def test_what_a_plan_says_can_be_decided_anew() -> None:
    planned = RecoveryPlan(method="full", minutes=3, runs=(RecoveryRun(of=5, done=4),))
    assert planned_training(PlanOptions(), planned) is planned and planned_training(PlanOptions()) is None
    assert planned_training(PlanOptions(recover="none"), planned) is None
    assert planned_training(PlanOptions(recover_minutes=7), planned) == RecoveryPlan(method="full", minutes=7)
    assert planned_training(PlanOptions(recover="bias"), planned) == RecoveryPlan(
        method="bias", minutes=DEFAULT_MINUTES
    )
    assert planned_training(PlanOptions(recover="full"), planned) == RecoveryPlan(
        method="full", minutes=DEFAULT_MINUTES
    )


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (("--recover", "ful"), "PC203"),
        (("--recover", "full", "--recover-minutes", "0"), "PC208"),
        (("--recover-minutes", "5"), "PC208"),
        (("--recover", "none", "--recover-minutes", "5"), "PC208"),
    ],
)
def test_what_makes_no_sense_is_refused(data: Path, asked: tuple[str, ...], code: str) -> None:
    refuses(prunec("compile", "model.onnx", "--flops", "0.5", *asked, *COMMON, cwd=data), code)
    assert not (data / "model.pruned").exists()


def test_a_search_for_a_drop_does_not_see_training(data: Path) -> None:
    asked = ("--max-drop", "0.1", "--recover", "full", "--calib", "data.npz")
    refuses(prunec("compile", "model.onnx", *asked, cwd=data), "PC222")


def test_without_torch_the_extra_is_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "torch" else find(name, *a))
    done = prunec("compile", "model.onnx", "--flops", "0.5", "--recover", "bias", *COMMON, cwd=data)
    refuses(done, "PC030")
    assert "prunec[torch]" in done.err


def test_a_quantised_model_is_refused_before_any_work(tmp_path: Path) -> None:
    b = Builder(0)
    scale, zero = b.const(np.array(0.1, np.float32)), b.const(np.array(0, np.int8))
    x = b.op("DequantizeLinear", [b.op("QuantizeLinear", [b.input("x", [1, 3, 8, 8]), scale, zero]), scale, zero])
    b.output(b.conv(b.relu(b.conv(x, 16)), 8))
    ir.save(b.model(), tmp_path / "model.onnx")
    done = prunec("compile", "model.onnx", "--flops", "0.5", "--recover", "full", "--no-measure", cwd=tmp_path)
    refuses(done, "PC340")
    assert "statistics" not in done.err
