"""Training against the dense model: the error falls, zeros and shapes stay, and what goes wrong is undone and said."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from prunec.diagnostics import PrunecError
from prunec.plan.recovery import RecoveryPlan, RecoveryRun
from tests.graph.builder import Builder
from tests.recover.nets import Case, Data, arrays, cut, residual, sparse

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
recovery = pytest.importorskip("prunec.recover.recovery")
training = pytest.importorskip("prunec.recover.training")
pytestmark = pytest.mark.torch


def steps(*counts: int) -> tuple[RecoveryRun, ...]:
    return tuple(RecoveryRun(of=count, done=count) for count in counts)


def recovered(case: Case, method: str, *counts: int, **options: Any) -> Any:
    plan = RecoveryPlan.model_validate({"method": method, "runs": steps(*counts), **options})
    return recovery.recover(case.dense, case.pruned, case.kept, case.data, plan)


def assert_zeros_and_shapes_stay(before: Any, after: Any) -> None:
    ours, theirs = arrays(before), arrays(after)
    assert {name: array.shape for name, array in ours.items()} == {name: array.shape for name, array in theirs.items()}
    for name, array in ours.items():
        zeros = array == 0
        if array.ndim > 1 and array.dtype == np.float32:
            assert not theirs[name][zeros].any() and not np.signbit(theirs[name][zeros]).any(), name


@pytest.mark.parametrize(("method", "counts"), [("bias", (40,)), ("blocks", (25, 25)), ("full", (30,))])
def test_zeros_stay_and_the_error_falls(method: str, counts: tuple[int, ...]) -> None:
    case = sparse()
    found = recovered(case, method, *counts)
    assert found.is_kept and found.error_after < 0.9 * found.error_before
    assert_zeros_and_shapes_stay(case.pruned, found.model)
    before, after = arrays(case.pruned), arrays(found.model)
    weights = [name for name, array in before.items() if array.ndim > 1 and array.dtype == np.float32]
    changed = [name for name in weights if not np.array_equal(before[name], after[name])]
    assert (changed == []) == (method == "bias")


def test_cut_channels_stay_gone() -> None:
    case = cut()
    found = recovered(case, "full", 15, 15, 40)
    assert found.is_kept and found.error_after < 0.8 * found.error_before
    assert_zeros_and_shapes_stay(case.pruned, found.model)
    assert [run.name for run in found.runs] == ["block 1 of 2", "block 2 of 2", "end to end"]


def test_blocks_come_first_only_where_little_is_left() -> None:
    case = sparse(share=0.3)
    found = recovered(case, "full", 10)
    assert found.error_before < recovery.FAR and [run.name for run in found.runs] == ["end to end"]


def test_the_same_steps_give_the_same_bytes() -> None:
    case = cut()
    one, two = (recovered(case, "full", 5, 5, 8) for _ in range(2))
    assert all(np.array_equal(array, arrays(two.model)[name]) for name, array in arrays(one.model).items())
    assert [run.done for run in one.runs] == [5, 5, 8] and one.runs == two.runs


def test_a_run_that_was_cut_short_is_made_again_as_it_was() -> None:
    """What a plan says of an interrupted recovery: the schedule that was begun, and where it ended."""
    case = sparse()
    short = (RecoveryRun(of=20, done=8),)
    plans = (RecoveryPlan(method="blocks", runs=short), RecoveryPlan(method="blocks", runs=steps(8)))
    models = [recovery.recover(case.dense, case.pruned, case.kept, case.data, plan).model for plan in plans]
    again = recovery.recover(case.dense, case.pruned, case.kept, case.data, plans[0]).model
    assert all(np.array_equal(array, arrays(again)[name]) for name, array in arrays(models[0]).items())
    assert any(not np.array_equal(array, arrays(models[1])[name]) for name, array in arrays(models[0]).items())


def tokens(b: Builder) -> str:
    x = b.input("x", ["n", 6, 16])  # type: ignore[list-item]
    y = b.op("LayerNormalization", [x, b.weight(16), b.weight(16)], axis=-1)
    return b.linear(b.op("Add", [b.linear(b.relu(b.linear(y, 32)), 16), x]), 8)


def recurrent(b: Builder) -> str:
    x = b.input("x", ["n", 6, 12])  # type: ignore[list-item]
    x = b.op("Transpose", [x], perm=[1, 0, 2])
    y, _, _ = b.op("LSTM", [x, b.weight(1, 64, 12), b.weight(1, 64, 16), b.weight(1, 128)], 3, hidden_size=16)
    return b.linear(b.op("ReduceMean", [y, b.const(np.array([0, 1]))], keepdims=0), 8)


def embedded(b: Builder) -> str:
    x = b.input("x", ["n", 6], 7)  # type: ignore[list-item]
    y = b.op("Gather", [b.weight(20, 16), x])
    return b.linear(b.relu(b.linear(y, 32)), 8)


@pytest.mark.parametrize(
    ("build", "data"), [(tokens, Data((6, 16))), (recurrent, Data((6, 12))), (embedded, Data((6,), high=20))]
)
def test_norms_recurrent_layers_and_tokens(build: Any, data: Data) -> None:
    case = sparse(build, data)
    found = recovered(case, "full", 25, 25)
    assert found.is_kept and found.error_after < found.error_before
    assert_zeros_and_shapes_stay(case.pruned, found.model)


def test_training_that_does_not_help_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that judge are other samples than those that watch: they may be farther off while the latter are nearer."""
    case, asked = sparse(), list[Any]()

    class Judging(recovery.WatchedOutputs):  # type: ignore[misc]
        def losses(self) -> np.ndarray:
            asked.append(self._batches)
            return np.full(4, len(asked), np.float64)

    monkeypatch.setattr(recovery, "WatchedOutputs", Judging)
    found = recovered(case, "bias", 5)
    assert len(asked) == 2 and asked[0] and asked[0] == asked[1]
    assert not found.is_kept and found.model is case.pruned
    assert [warning.code for warning in found.warnings] == ["PC341", "PC342"]


def test_what_diverges_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "BIAS_RATE", 1e6)
    case = sparse()
    found = recovered(case, "bias", 40)
    assert [run.stop for run in found.runs] == ["diverged"] and "PC344" in [warning.code for warning in found.warnings]
    assert found.runs[0].after <= found.runs[0].before
    assert_zeros_and_shapes_stay(case.pruned, found.model)


def test_a_loss_that_is_no_number_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from prunec.recover import end_to_end

    monkeypatch.setattr(end_to_end._Distillation, "loss", lambda self: self.trial(0.0) * float("nan"))
    case = sparse()
    found = recovered(case, "bias", 30)
    assert found.runs[0].stop == "diverged" and found.runs[0].done == 3 and not found.is_kept


def test_ctrl_c_keeps_the_best_state_and_a_second_one_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    from prunec.recover import blockwise

    case = sparse()
    honest, calls = blockwise._Task._loss, []

    def pressed(task: Any, batch: int) -> Any:
        calls.append(batch)
        if len(calls) == 25:
            signal.raise_signal(signal.SIGINT)
        return honest(task, batch)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(blockwise._Task, "_loss", pressed)
    found = recovery.recover(case.dense, case.pruned, case.kept, case.data, RecoveryPlan(method="blocks", minutes=1))
    assert [run.stop for run in found.runs] == ["interrupted"] and signal.getsignal(signal.SIGINT) is before
    assert "PC345" in [warning.code for warning in found.warnings]
    calls.clear()
    again = recovered(cut(), "full", 30, 30, 30)
    assert [run.stop for run in again.runs] == ["interrupted"]  # no block is begun that nobody waits for
    monkeypatch.setattr(blockwise._Task, "_loss", lambda *_: [signal.raise_signal(signal.SIGINT) for _ in range(2)])
    with pytest.raises(KeyboardInterrupt):
        recovery.recover(case.dense, case.pruned, case.kept, case.data, RecoveryPlan(method="blocks", minutes=1))
    assert signal.getsignal(signal.SIGINT) is before


def test_minutes_bound_the_time() -> None:
    case = cut()
    plan = RecoveryPlan(method="full", minutes=0.02)
    found = recovery.recover(case.dense, case.pruned, case.kept, case.data, plan)
    assert found.minutes < 0.1 and len(found.runs) == 3
    again = recovery.recover(
        case.dense, case.pruned, case.kept, case.data,
        plan.model_copy(update={"runs": tuple(run.planned() for run in found.runs)}),
    )  # fmt: skip
    assert all(np.array_equal(array, arrays(again.model)[name]) for name, array in arrays(found.model).items())


def test_outputs_that_are_not_finite_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any training: no error would say whether it helps."""

    def endless(b: Builder) -> str:
        return b.op("Add", [residual(b), b.const(np.array([[-np.inf, *[0] * 9]], np.float32))])

    with pytest.raises(PrunecError, match=r"PC346.*held-out samples"):
        recovered(sparse(endless), "full", 5)
    monkeypatch.setattr(recovery.WatchedOutputs, "error", lambda self: float("nan"))
    with pytest.raises(PrunecError, match=r"PC346.*watched"):
        recovered(sparse(), "bias", 5)


def test_nothing_to_train_is_refused() -> None:
    case = sparse()
    bare = replace(case, pruned=sparse(lambda b: b.op("Relu", [b.input("x", [8, 3, 8, 8])])).pruned)
    with pytest.raises(PrunecError, match="PC343") as caught:
        recovered(bare, "full", 5)
    assert caught.value.diagnostic.where == "--recover"
