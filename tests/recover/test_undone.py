"""Training beside a metric: what lowers it is undone, and a replay of the plan has none of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import prunec
from prunec.api import compilation, planning, pruning
from prunec.cli.run import run
from prunec.diagnostics import Diagnostic
from prunec.plan.recovery import RecoveryPlan, RecoveryRun
from prunec.recover import recovery
from prunec.recover.recovery import chance
from tests.graph.builder import Builder
from tests.recover.test_budgets import batches

pytest.importorskip("torch", reason="needs the [torch] extra")
pytestmark = pytest.mark.torch

RUNS = (RecoveryRun(of=60, done=60),)


@pytest.fixture(autouse=True)
def steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many steps whatever the machine's speed."""
    real = recovery.recover

    def counted(*arguments: Any, **more: Any) -> recovery.Recovered:
        *models, plan = arguments
        return real(*models, plan.model_copy(update={"runs": RUNS}), **more)

    monkeypatch.setattr(recovery, "recover", counted)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model, a plan that trains it and one that does not."""
    b = Builder(0)
    hidden = b.relu(b.gemm(b.input("x", [8, 16]), 32))
    b.output(b.gemm(b.relu(b.gemm(hidden, 32)), 8))
    ir.save(b.model(), tmp_path / "model.onnx")
    path, calib = str(tmp_path / "model.onnx"), batches(24, 8, 16)
    made = planning.plan(path, flops=0.5, calib=calib, cache=False).plan
    made = made.model_copy(update={"compensation": "none"})  # which leaves much to train
    made.save(tmp_path / "plain.json")
    made.model_copy(update={"recovery": RecoveryPlan(method="full")}).save(tmp_path / "plan.json")
    return tmp_path


def compiled(folder: Path, plan: str, numbers: list[float] | None = None) -> Any:
    """`numbers`: what the metric answers, about the dense model, before training, after it, and what is shipped."""
    answers = iter(numbers or ())

    def told(answer: Any) -> float:
        return next(answers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compilation, "load_metric", lambda spec: told)
        return prunec.compile(
            str(folder / "model.onnx"), plan=folder / plan, calib=batches(24, 8, 16), measure=False, cache=False,
            metric=None if numbers is None else "own:told", output=folder / f"{plan}.out",
        )  # fmt: skip


def weights(path: Path) -> Iterator[np.ndarray]:
    model = ir.load(path)
    return (value.const_value.numpy() for value in model.graph.initializers.values() if value.const_value is not None)


def test_what_lowers_the_metric_is_undone(folder: Path) -> None:
    found, plain = compiled(folder, "plan.json", [1.0, 0.9, 0.8, 0.9]), compiled(folder, "plain.json")
    record = found.verification.recovery
    assert not record.kept and record.error_after < record.error_before and record.metric.after == 0.8
    assert found.plan.recovery is None and plain.verification.recovery is None
    assert any(w.code == "PC353" and "told by 0.1" in w.message for w in found.warnings)
    both = (weights(folder / f"{name}.json.out" / "model.onnx") for name in ("plan", "plain"))
    assert all(np.array_equal(one, other) for one, other in zip(*both, strict=True))
    assert run(["verify", str(folder / "plan.json.out"), "--source", str(folder / "model.onnx")]) == 0


@pytest.mark.parametrize("after", [0.9, 0.95])
def test_what_does_not_lower_it_stays(folder: Path, after: float) -> None:
    found = compiled(folder, "plan.json", [1.0, 0.9, after, after])
    record = found.verification.recovery
    assert record.kept and found.plan.recovery.runs[0].done == 60
    assert (record.metric.name, record.metric.before, record.metric.after) == ("told", 0.9, after)
    assert not {"PC353", "PC349"} & {warning.code for warning in found.warnings}


def test_a_replay_repeats_what_was_decided(folder: Path) -> None:
    """The plan of a finished compile holds the training: the same bytes, whatever a metric says now."""
    first = compiled(folder, "plan.json")
    first.plan.save(folder / "again.json")
    again = compiled(folder, "again.json", [1.0, 0.5])
    assert again.verification.recovery.kept and again.plan.recovery.runs == first.plan.recovery.runs
    both = (folder / f"{name}.json.out" / "model.onnx" for name in ("plan", "again"))
    assert len({path.read_bytes() for path in both}) == 1


def test_without_a_metric_nothing_is_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "evaluate", None)
    assert compiled(folder, "plan.json").verification.recovery.kept


def test_chance_is_named() -> None:
    before = np.full(20, 0.1)
    lucky = before.copy()
    lucky[0] = 0.0

    def said(after: np.ndarray) -> list[Diagnostic]:
        return list(chance(before, after))

    assert [warning.code for warning in said(lucky)] == ["PC349"] and "20 held-out samples" in said(lucky)[0].message
    assert not said(0.9 * before) and not said(1.1 * before)
