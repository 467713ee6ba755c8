"""Training in bfloat16: only where the processor has it, with float32 around it, and replayed as what it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import prunec
from prunec.api.options import PlanOptions
from prunec.diagnostics import PrunecError
from prunec.plan.recovery import RecoveryPlan, RecoveryRun
from tests.graph.builder import Builder
from tests.recover.nets import Case, Data, arrays, cut, sparse
from tests.recover.test_recovery import assert_zeros_and_shapes_stay, tokens

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
precision = pytest.importorskip("prunec.recover.precision")
recovery = pytest.importorskip("prunec.recover.recovery")
end_to_end = pytest.importorskip("prunec.recover.end_to_end")
pytestmark = pytest.mark.torch


@pytest.fixture
def has_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch computes in bfloat16 on any processor, slowly where there are no instructions."""
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset({"avx512_bf16"}))


def recovered(case: Case, **plan: Any) -> Any:
    runs = tuple(RecoveryRun(of=count, done=count) for count in plan.pop("runs"))
    asked = RecoveryPlan.model_validate({"runs": runs, **plan})
    return recovery.recover(case.dense, case.pruned, case.kept, case.data, asked)


@pytest.mark.usefixtures("has_bf16")
@pytest.mark.parametrize(
    ("case", "method", "runs"),
    [
        (sparse(share=0.3), "full", (30,)),
        (sparse(), "blocks", (25, 25)),
        (sparse(), "bias", (40,)),
        (sparse(tokens, Data((6, 16))), "full", (25, 25)),
        (cut(), "full", (15, 15, 40)),
    ],
)
def test_the_error_falls_and_zeros_stay(case: Case, method: str, runs: tuple[int, ...]) -> None:
    found = recovered(case, method=method, runs=runs, precision="bf16")
    assert found.is_kept and found.error_after < found.error_before
    assert_zeros_and_shapes_stay(case.pruned, found.model)
    assert all(array.dtype == arrays(case.pruned)[name].dtype for name, array in arrays(found.model).items())


@pytest.mark.usefixtures("has_bf16")
def test_only_the_passes_of_the_training_are_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """What watches and judges sees the float32 model, and so the same error before; weights come out different."""
    case, seen = sparse(), list[Any]()
    honest = end_to_end.output_loss

    def looked(found: Any, *rest: Any) -> Any:
        seen.extend(tensor.dtype for tensor in found.values())
        return honest(found, *rest)

    monkeypatch.setattr(end_to_end, "output_loss", looked)
    ours, theirs = (recovered(case, method="bias", runs=(12,), precision=name) for name in ("bf16", "fp32"))
    assert set(seen) == {torch.float32} and ours.runs[0].before == theirs.runs[0].before
    assert any(not np.array_equal(array, arrays(theirs.model)[name]) for name, array in arrays(ours.model).items())
    again = recovered(case, method="bias", runs=(12,), precision="bf16")
    assert all(np.array_equal(array, arrays(ours.model)[name]) for name, array in arrays(again.model).items())


@pytest.mark.parametrize("runs", [(), (5,)])
def test_a_processor_without_it_is_told_so(monkeypatch: pytest.MonkeyPatch, runs: tuple[int, ...]) -> None:
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset({"avx2", "avx512f"}))
    with pytest.raises(PrunecError, match="PC347") as caught:
        recovered(sparse(), method="bias", runs=runs, precision="bf16")
    assert ("this plan's training ran in bf16" in str(caught.value)) == bool(runs)
    assert "--recover-precision fp32" in str(caught.value.diagnostic.hint)
    assert precision.settled(RecoveryPlan(method="full", precision="auto")).precision == "fp32"


@pytest.mark.parametrize(
    ("own", "code"),
    [
        ({"recover": "full", "recover_precision": "fp8"}, "PC203"),
        ({"recover_precision": "bf16"}, "PC208"),
        ({"recover": "none", "recover_precision": "bf16"}, "PC208"),
    ],
)
def test_options_that_make_no_sense(own: dict[str, Any], code: str) -> None:
    with pytest.raises(PrunecError, match=code):
        PlanOptions(flops=0.5, **own).check()


def test_a_plan_says_what_it_was_and_a_replay_is_held_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    b = Builder(0)
    b.output(b.gemm(b.relu(b.gemm(b.input("x", [8, 16]), 32)), 8))
    ir.save(b.model(), tmp_path / "model.onnx")
    model, rng = str(tmp_path / "model.onnx"), np.random.default_rng(0)
    calib = [{"x": rng.standard_normal((8, 16)).astype(np.float32)} for _ in range(8)]
    own: dict[str, Any] = {"calib": calib, "measure": False, "cache": False}
    asked: dict[str, Any] = {"flops": 0.5, "recover": "full", "recover_minutes": 0.005, **own}
    for name, flags, wanted in (("slow", {"avx2"}, "fp32"), ("fast", {"amx_bf16"}, "bf16")):
        monkeypatch.setattr(precision, "cpu_flags", lambda flags=flags: frozenset(flags))
        found = prunec.compile(model, recover_precision="auto", output=tmp_path / name, **asked)
        assert found.plan.recovery is not None and found.plan.recovery.precision == wanted
        assert found.verification is not None and found.verification.recovery is not None
        assert found.verification.recovery.precision == wanted
        assert ('"precision": "bf16"' in (tmp_path / name / "plan.json").read_text()) == (wanted == "bf16")
    prunec.compile(model, plan=tmp_path / "fast/plan.json", output=tmp_path / "again", **own)
    assert (tmp_path / "fast/model.onnx").read_bytes() == (tmp_path / "again/model.onnx").read_bytes()
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset({"avx2"}))
    with pytest.raises(PrunecError, match="PC347"):
        prunec.compile(model, plan=tmp_path / "fast/plan.json", output=tmp_path / "refused", **own)
