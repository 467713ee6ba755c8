"""Training beside a metric: what lowers it is undone, and a replay of the plan has none of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from rich.console import Console

import prunec
from prunec.api import compilation, planning, pruning
from prunec.cli.run import run
from prunec.diagnostics import Diagnostic
from prunec.plan.recovery import NO_STEPS, RecoveryPlan, RecoveryRun
from prunec.recover import quantised, recovery
from prunec.recover.recovery import chance
from prunec.report.console import print_recovery
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
        return real(*models, plan.model_copy(update={"runs": plan.runs or RUNS}), **more)

    def counted_in_8_bits(*arguments: Any, **more: Any) -> recovery.Recovered:
        *models, plan = arguments
        return real_in_8_bits(*models, plan.model_copy(update={"runs": plan.runs or RUNS}), **more)

    real_in_8_bits = quantised.recover_quantised
    monkeypatch.setattr(recovery, "recover", counted)
    monkeypatch.setattr(quantised, "recover_quantised", counted_in_8_bits)


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


def compiled(folder: Path, plan: str | None, numbers: list[float] | None = None, **options: Any) -> Any:
    """`numbers`: what the metric answers, about the dense model, before training, after it, and what is shipped."""
    answers = iter(numbers or ())

    def told(answer: Any) -> float:
        return next(answers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compilation, "load_metric", lambda spec: told)
        return prunec.compile(
            str(folder / "model.onnx"), plan=None if plan is None else folder / plan, calib=batches(24, 8, 16),
            measure=False, cache=False, metric=None if numbers is None else "own:told",
            output=folder / f"{plan}.out", **options,
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


def bytes_of(folder: Path, *names: str) -> set[bytes]:
    return {(folder / f"{name}.out" / "model.onnx").read_bytes() for name in names}


def test_a_step_that_lowers_the_metric_is_undone_alone(folder: Path) -> None:
    own = {"flops": 0.5, "recover": "full", "steps": 2, "compensate": False}
    found = compiled(folder, None, [1.0, 0.9, 0.8, 0.85, 0.9, 0.9], **own)
    (first,), last = found.plan.recovery.rounds, found.plan.recovery.runs
    assert first.runs == NO_STEPS and last[0].done == 60 and found.verification.recovery.kept
    (said,) = (w.message for w in found.warnings if w.code == "PC353")
    assert said.startswith("step 1 of 2: training lowered") and "told by 0.1" in said
    assert found.verification.recovery.metric.after == 0.9
    assert [(own.kept, own.metric.after) for own in found.verification.recovery.rounds] == [(False, 0.8), (True, 0.9)]
    found.plan.save(folder / "steps.json")
    again = compiled(folder, "steps.json", [1.0, 0.5])
    assert again.plan == found.plan and len(bytes_of(folder, "None", "steps.json")) == 1
    assert "PC342" not in [warning.code for warning in again.warnings]


def test_the_report_tells_the_rounds_apart(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Kept, then undone: what is shipped has the first training, and both are said."""
    own = {"flops": 0.5, "recover": "full", "steps": 2, "compensate": False}
    found = compiled(folder, None, [1.0, 0.9, 0.95, 0.9, 0.8, 0.9], **own)
    record = found.verification.recovery
    assert record.kept and [one.kept for one in record.rounds] == [True, False]
    assert found.plan.recovery.runs == NO_STEPS and found.plan.recovery.rounds[0].runs[0].done == 60
    console = Console(width=400)
    print_recovery(console, found.verification.model_dump(mode="json"))
    told, page = capsys.readouterr().out, (folder / "None.out" / "report.html").read_text()
    assert "step 1 of 2: " in told and "told 0.9 → 0.95, then step 2 of 2: " in told
    assert told.count("it harmed and was taken back") == 1 and told.index("0.9 → 0.8; it harmed") > told.index("step 2")
    assert page.count("It harmed") == 1 and page.index("step 1 of 2, ") < page.index("step 2 of 2, ")
    found.plan.save(folder / "kept.json")
    print_recovery(console, compiled(folder, "kept.json").verification.model_dump(mode="json"))
    again, page = capsys.readouterr().out, (folder / "kept.json.out" / "report.html").read_text()
    assert ", not trained." in again and "taken back" not in again
    assert page.count("not trained. ") == 1 and "did not help" not in page


@pytest.mark.parametrize(("in_float", "in_8_bits"), [(False, True), (True, False), (False, False)])
def test_a_training_in_8_bits_is_judged_by_itself(folder: Path, in_float: bool, in_8_bits: bool) -> None:
    numbers = [1.0, 0.9, 0.95 if in_float else 0.8, 0.9, 0.9 if in_8_bits else 0.7, 0.9]
    own = {"pattern": "unstructured", "sparsity": 0.5, "solver": "magnitude", "recover": "full", "compensate": False}
    found = compiled(folder, None, numbers, precision="int8", **own)
    runs, in_int8 = found.plan.recovery.runs, found.plan.recovery.quantised
    assert (runs != NO_STEPS, in_int8 != NO_STEPS) == (in_float, in_8_bits)
    said = [w.message for w in found.warnings if w.code == "PC353"]
    assert [message.startswith("in 8 bits, training") for message in said] == [False] * (not in_float) + [True] * (
        not in_8_bits
    )
    assert found.verification.quantisation.recovery.kept == in_8_bits
    found.plan.save(folder / "bits.json")
    again = compiled(folder, "bits.json", [1.0, 0.5], precision="int8")
    assert again.plan == found.plan and len(bytes_of(folder, "None", "bits.json")) == 1
    assert "PC342" not in [warning.code for warning in again.warnings]
    if not in_float:  # what was trained in 8 bits is not forgotten by a replay in float
        assert compiled(folder, "bits.json", force=True).plan.recovery == found.plan.recovery


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
