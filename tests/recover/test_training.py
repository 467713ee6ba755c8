"""Rates that are tried, replays of what ended while they were, and the part of a block's training that is kept."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from prunec.plan.recovery import RecoveryPlan, RecoveryRun
from tests.recover.nets import arrays, sparse

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
recovery = pytest.importorskip("prunec.recover.recovery")
training = pytest.importorskip("prunec.recover.training")
pytestmark = pytest.mark.torch

STEPS = 64
"""Of which 4 go to each rate."""


def recovered(*runs: RecoveryRun, **options: Any) -> Any:
    case = sparse(share=0.3)
    plan = RecoveryPlan.model_validate({"method": "full", "runs": runs, **options})
    return recovery.recover(case.dense, case.pruned, case.kept, case.data, plan)


def test_a_smaller_rate_is_taken_where_the_whole_one_destroys(monkeypatch: pytest.MonkeyPatch) -> None:
    run = RecoveryRun(of=STEPS, done=STEPS)
    monkeypatch.setattr(recovery, "FULL_RATE", 3.0)
    found = recovered(run)
    assert found.is_kept and found.error_after < 0.3 * found.error_before
    monkeypatch.setattr(training, "TRIED", (1.0,))
    assert not recovered(run).is_kept


@pytest.mark.parametrize("calls", [6, 8, 9])
def test_what_ended_while_rates_were_tried_is_made_again_as_it_was(monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    """In the middle of the second rate, as its last step is made, and as the first of the third is."""
    from prunec.recover import end_to_end

    monkeypatch.setattr(training._Training, "_affordable", lambda *_: STEPS)
    honest, made = end_to_end._Distillation.loss, list[int]()

    def pressed(task: Any) -> Any:
        made.append(1)
        if len(made) == calls:
            signal.raise_signal(signal.SIGINT)
        return honest(task)

    monkeypatch.setattr(end_to_end._Distillation, "loss", pressed)
    found = recovered(minutes=5)
    assert [(run.of, run.done, run.stop) for run in found.runs] == [(STEPS, calls, "interrupted")] and found.is_kept
    again = recovered(*(run.planned() for run in found.runs))
    assert [run.after for run in again.runs] == [run.after for run in found.runs]
    assert all(np.array_equal(array, arrays(again.model)[name]) for name, array in arrays(found.model).items())


def test_a_rate_that_was_in_vain_is_left_again_in_a_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the replay has few steps left, while the training itself had many."""
    from prunec.recover import end_to_end

    of, calls = 200, 150
    monkeypatch.setattr(recovery, "FULL_RATE", 3.0)
    for name, value in (("HARMLESS", np.inf), ("DIVERGED", np.inf), ("PATIENCE", 1)):
        monkeypatch.setattr(training, name, value)
    monkeypatch.setattr(training._Training, "_affordable", lambda *_: of)
    honest, descend, made, rates = end_to_end._Distillation.loss, training._Training._descend, [0], list[float]()

    def pressed(task: Any) -> Any:
        made[0] += 1
        if made[0] == calls:
            signal.raise_signal(signal.SIGINT)
        return honest(task)

    def told(run: Any, rate: float, *rest: Any) -> Any:
        rates.append(rate)
        return descend(run, rate, *rest)

    monkeypatch.setattr(end_to_end._Distillation, "loss", pressed)
    monkeypatch.setattr(training._Training, "_descend", told)
    found = recovered(minutes=5)
    first = rates.copy()
    assert found.runs[0].done == calls and len(first) > 2 and first[-1] < first[1]
    rates.clear()
    again = recovered(*(run.planned() for run in found.runs))
    assert rates == first and again.runs[0].after == found.runs[0].after


@pytest.fixture
def watched() -> Iterator[Any]:
    """Watched outputs of a student whose weights are the dense model's, and the student."""
    from prunec.recover.clock import Clock
    from prunec.recover.data import Pool
    from prunec.recover.losses import kinds
    from prunec.recover.parameters import trainable
    from prunec.recover.student import Student
    from prunec.recover.subject import Subject
    from prunec.recover.watched import WatchedOutputs

    case = sparse(share=0.0)
    trained, pool = trainable(case.pruned), Pool(case.pruned, case.data)
    student = Student(case.pruned, trained)
    subject = Subject(
        case.dense, case.pruned, case.kept, pool, student, trained, kinds(case.pruned), {}, Clock(None), 0, 1
    )
    outputs = WatchedOutputs(subject)
    yield outputs, student
    outputs.close()
    pool.close()


@pytest.mark.parametrize(
    ("before", "after", "taken"), [(0.1, 0.02, 1.0), (0.1, -0.14, 0.5), (0.0, 0.2, 0.0), (0.05, 0.3, 0.0)]
)
def test_of_a_training_as_much_is_kept_as_helps_the_outputs(
    watched: Any, before: float, after: float, taken: float
) -> None:
    """The student is moved along one direction, on which its outputs are the dense model's at 0."""
    outputs, student = watched
    best, generator = student.state(student.parameters), torch.Generator().manual_seed(0)
    away = {name: tensor.std() * torch.randn(tensor.shape, generator=generator) for name, tensor in best.items()}

    def at(place: float) -> dict[str, Any]:
        return {name: tensor + place * away[name] for name, tensor in best.items()}

    assert outputs.error() < 1e-6
    student.restore(at(before))
    error = outputs.error()
    student.restore(at(after))
    left = outputs.take_part(at(before), error)
    assert left <= error and left == outputs.error() and (left < error) == (taken > 0)
    wanted = at(before + taken * (after - before))
    assert all(torch.allclose(student.parameters[name], wanted[name], atol=1e-6) for name in wanted)


@pytest.mark.parametrize(("of", "most"), [(20, 20), (37, 20), (39, 20), (100, 20)])
def test_checks_are_no_more_than_were_paid_for(monkeypatch: pytest.MonkeyPatch, of: int, most: int) -> None:
    """37 steps were checked 37 times, and ten of them without progress were a quarter of the schedule."""
    monkeypatch.setattr(training, "FEWEST_TO_TRY", 1000)
    honest, checks = training._Training._check, list[float]()

    def counted(run: Any) -> float:
        checks.append(honest(run))
        return checks[-1]

    monkeypatch.setattr(training._Training, "_check", counted)
    (run,) = recovered(RecoveryRun(of=of, done=of)).runs
    assert len(checks) <= most and (run.stop == "finished" or len(checks) > training.PATIENCE)


def test_a_schedule_is_as_long_as_batches_of_all_lengths_allow() -> None:
    """The first texts are a third as long as the others: steps counted by them alone would never be finished."""
    now, first = [0.0], 0.2

    class Loss:
        def backward(self) -> None:
            """Nothing to train."""

    def trial(place: float) -> Loss:
        now[0] += 1.0 if place < first else 3.0
        return Loss()

    task = training.Objective(lambda: None, lambda: 0.0, trial, parts=2)
    run = SimpleNamespace(clock=SimpleNamespace(now=lambda: now[0]), objective=task)
    steps = training._Training._affordable(run, training.Budget(2000.0), 0.0)
    seconds = 2 * (first * 1.0 + (1 - first) * 3.0)
    assert 0.8 < steps * seconds / 2000.0 < 1.0
