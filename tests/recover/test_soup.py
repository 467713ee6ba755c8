"""Means of trainings that share their zeros: taken greedily, kept only where they are better."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prunec.api.options import PlanOptions
from prunec.diagnostics import PrunecError
from prunec.plan.recovery import RecoveryPlan, RecoveryRun
from tests.recover.nets import arrays, sparse

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
recovery = pytest.importorskip("prunec.recover.recovery")
pytestmark = pytest.mark.torch


def test_only_what_makes_the_mean_better_is_taken() -> None:
    from prunec.recover.soup import greedy

    def error(state: Any) -> float:
        return float((state["w"] - torch.tensor([1.0, 1.0, 0.0])).square().sum())

    states = [{"w": torch.tensor(w), "n": torch.tensor(3)} for w in ([1.4, 0.6, 0.0], [0.5, 1.5, 0.0], [9.0, 9.0, 0.0])]
    found = greedy(states, [error(state) for state in states], error)
    assert found.taken == (0, 1) and found.error < found.single == pytest.approx(0.32)
    assert torch.allclose(found.state["w"], torch.tensor([0.95, 1.05, 0.0])) and int(found.state["n"]) == 3


def test_a_soup_of_modules_is_no_worse_than_its_best_and_keeps_the_zeros() -> None:
    import prunec.torch

    torch.manual_seed(0)
    module = torch.nn.Linear(6, 2)
    masks = {"weight": torch.arange(12).reshape(2, 6) % 2 == 0}
    best = module.weight.detach().clone().masked_fill_(~masks["weight"], 0.0)
    states = []
    for sign in (1, -1):
        state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        state["weight"] = (best + sign * 0.1 * torch.ones(2, 6)).masked_fill_(~masks["weight"], 0.0)
        states.append(state)
    found = prunec.torch.soup(module, states, lambda own: float((own.weight.detach() - best).abs().sum()), masks)
    assert len(found.taken) == 2 and found.error < 1e-5 and not module.weight[~masks["weight"]].any()
    for wrong in ([], [{**states[0], "weight": torch.ones(2, 6)}], [{"weight": states[0]["weight"]}]):
        with pytest.raises(PrunecError, match="PC047") as caught:
            prunec.torch.soup(module, wrong, lambda own: 0.0, masks)
        assert caught.value.diagnostic.hint


def test_recovery_takes_the_mean_of_several_trainings_and_replays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    case = sparse(share=0.3)
    runs = tuple(RecoveryRun(of=12, done=12) for _ in range(3))
    plan = RecoveryPlan(method="full", soup=3, runs=runs)
    found, again = (recovery.recover(case.dense, case.pruned, case.kept, case.data, plan) for _ in range(2))
    assert found.is_kept and [run.done for run in found.runs] == [12, 12, 12]
    assert "training 3 of 3 (the mean of" in found.runs[-1].name
    ours, theirs = arrays(found.model), arrays(again.model)
    assert all(np.array_equal(array, theirs[name]) for name, array in ours.items())
    before = arrays(case.pruned)
    assert all(not ours[name][array == 0].any() for name, array in before.items() if array.ndim > 1)
    timed = recovery.recover(
        case.dense, case.pruned, case.kept, case.data, RecoveryPlan(method="bias", soup=2, minutes=0.003)
    )
    assert len(timed.runs) == 2 and timed.minutes < 0.1


@pytest.mark.parametrize(("recover", "count"), [("full", 0), (None, 3), ("none", 3), ("blocks", 3)])
def test_soups_of_nothing_are_refused(recover: str | None, count: int) -> None:
    with pytest.raises(PrunecError, match="PC208") as caught:
        PlanOptions(flops=0.5, recover=recover, recover_soup=count).check()
    assert caught.value.diagnostic.where == "--recover-soup" and caught.value.diagnostic.hint
