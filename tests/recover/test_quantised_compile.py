"""`--recover` beside `--precision int8`: trained before 8 bits and in them, and replayed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import prunec
from prunec.api import recovering
from prunec.plan.recovery import RecoveryPlan, RecoveryRun
from tests.cli.networks import residual

pytest.importorskip("torch", reason="needs the [torch] extra")
pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    ir.save(residual([1, 3, 17, 15], 32), path)
    return str(path)


def options() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    calib = [{"x": rng.standard_normal((1, 3, 17, 15)).astype(np.float32)} for _ in range(30)]
    return {"calib": calib, "measure": False, "cache": False}


ZEROS: dict[str, Any] = {"pattern": "2:4", "sparsity": 0.5, "solver": "magnitude", "compensate": False}


def test_what_is_quantised_is_trained_and_replayed(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minutes = []
    honest = recovering.recovered_in_8_bits

    def watched(steps: Any, own: Any, bits: int, asked: RecoveryPlan, *rest: Any) -> Any:
        minutes.append(asked.minutes)
        return honest(steps, own, bits, asked, *rest)

    monkeypatch.setattr("prunec.api.quantising.recovered_in_8_bits", watched)
    own = {**options(), "precision": "int8"}
    found = prunec.compile(
        model, recover="bias", recover_minutes=0.02, output=tmp_path / "out", **ZEROS, **own
    )  # fmt: skip
    assert minutes == [0.02]
    assert found.verification is not None and found.verification.quantisation is not None
    training = found.verification.quantisation.recovery
    assert training is not None and training.runs and training.error_after is not None
    assert all(run.name.startswith("in 8 bits, ") for run in training.runs)
    assert found.verification.patterns is not None and found.verification.patterns.passed
    assert found.plan.recovery is not None and found.plan.recovery.runs and found.plan.recovery.quantised
    assert sum(run.done for run in found.plan.recovery.quantised) == sum(run.done for run in training.runs)
    prunec.compile(model, plan=tmp_path / "out/plan.json", output=tmp_path / "again", **own)
    for name in ("model.onnx", "plan.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_plan_that_was_trained_in_float_says_so_when_8_bits_are_asked_for(model: str, tmp_path: Path) -> None:
    own = options()
    first = prunec.compile(model, recover="bias", recover_minutes=0.005, output=tmp_path / "out", **ZEROS, **own)
    assert first.plan.recovery is not None and not first.plan.recovery.quantised
    found = prunec.compile(
        model, plan=tmp_path / "out/plan.json", output=tmp_path / "again", precision="int8", **own
    )  # fmt: skip
    assert [warning.code for warning in found.warnings].count("PC348") == 1
    assert found.verification is not None and found.verification.quantisation is not None
    assert found.verification.quantisation.recovery is None


def test_half_of_the_minutes_is_left_for_8_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    from prunec.api.options import PlanOptions
    from prunec.recover import quantised, recovery

    asked: list[float] = []

    def stopped(*arguments: Any, **others: Any) -> Any:
        asked.append(next(own.minutes for own in arguments if isinstance(own, RecoveryPlan)))
        raise KeyboardInterrupt

    monkeypatch.setattr(recovery, "recover", stopped)
    monkeypatch.setattr(quantised, "recover_quantised", stopped)
    monkeypatch.setattr(recovering, "Kept", lambda *arguments: None)
    monkeypatch.setattr(recovering, "whole", lambda steps: ())
    plan = RecoveryPlan(method="full", minutes=8)
    steps: Any = [type("Step", (), {"before": None})]
    for in_8_bits in (False, True):
        own: Any = PlanOptions(trains_in_8_bits=in_8_bits)
        with pytest.raises(KeyboardInterrupt):
            recovering.recovered(steps, None, _Planned(plan), None, own, lambda *a: None)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        recovering.recovered_in_8_bits(steps, None, 8, plan, None, own, lambda *a: None)  # type: ignore[arg-type]
    assert asked == [8, 4, 4]


class _Planned:
    """As much of a plan as is asked for."""

    def __init__(self, recovery: RecoveryPlan) -> None:
        self.recovery = recovery


def test_a_plan_says_nothing_of_8_bits_where_there_were_none() -> None:
    plan = RecoveryPlan(method="full", runs=(RecoveryRun(of=3, done=3),))
    assert "quantised" not in plan.model_dump()
    again = RecoveryPlan.model_validate({**plan.model_dump(), "quantised": [{"of": 2, "done": 1}]})
    assert RecoveryPlan.model_validate(again.model_dump()) == again and again.quantised[0].done == 1
