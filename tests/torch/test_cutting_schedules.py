"""Channels that go in training: masked ones alone are regularised, gates are learnt, what is left is exact."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

import prunec
from prunec.diagnostics import GateError, PrunecError
from tests.torch.modules import make
from tests.torch.test_sparsifier import data, train

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_registry")]
STEPS = 20


@pytest.fixture(scope="module")
def plan() -> Any:
    module, x = make("mlp")
    return prunec.plan(module, example_inputs=x, flops=0.5, samples=8, cache=False).plan


def sparsifier(plan: Any, schedule: Any, steps: int = STEPS) -> tuple[Any, Any, Any, Any]:
    module, x = make("mlp")
    samples, targets = data(module, x)
    optimiser = torch.optim.AdamW(module.parameters(), 1e-3, weight_decay=0.0)
    return (
        prunec.torch.Sparsifier(module, optimiser, plan, schedule, steps=steps, example_inputs=x),
        optimiser,
        samples,
        targets,
    )


def test_only_masked_channels_are_regularised_and_nothing_is_left_of_them(plan: Any) -> None:
    own, optimiser, samples, targets = sparsifier(plan, "mask-sparsity")
    for group in optimiser.param_groups:
        group["lr"] = 0.0  # the penalty alone
    before = {name: p.detach().clone() for name, p in own.module.named_parameters()}
    masks = own._training.channels.masks()
    assert {name for name, mask in masks.items() if not mask.all()} >= {
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "3.weight",
    }
    train(own.module, optimiser, samples, targets, STEPS // 2)
    for name, parameter in own.module.named_parameters():
        mask = masks.get(name, torch.ones_like(parameter, dtype=torch.bool))
        assert torch.equal(parameter[mask], before[name][mask])
        goes, was = parameter.detach()[~mask].abs(), before[name][~mask].abs()
        assert bool((goes <= was).all()) and (not was.any() or float(goes.sum()) < float(was.sum()))
    train(own.module, optimiser, samples, targets, STEPS - STEPS // 2)
    wide = copy.deepcopy(own.module).eval()
    done = own.finalize()
    assert done.kind == "module" and done.exactness is not None and done.exactness.passed
    assert done.module[0].out_features < 48 and done.module[3].in_features == done.module[0].out_features
    with torch.no_grad():
        assert torch.allclose(done.module.eval()(samples), wide(samples), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["mask-sparsity", "gates"])
@pytest.mark.parametrize("name", ["residual", "inverted_residual", "grouped", "self_attention"])
def test_every_kind_of_layer_ends_as_the_wide_module_without_them(name: str, schedule: str) -> None:
    module, x = make(name)
    plan = prunec.plan(module, example_inputs=x, flops=0.6, samples=8, cache=False).plan
    samples, targets = data(module, x)
    optimiser = torch.optim.SGD(module.parameters(), 1e-3)
    own = prunec.torch.Sparsifier(module, optimiser, plan, schedule, steps=STEPS, example_inputs=x)
    train(module, optimiser, samples, targets, STEPS)
    wide = copy.deepcopy(module).eval()
    done = own.finalize()
    assert done.kind == "module" and done.plan.realised.flops <= 0.6
    with torch.no_grad():
        assert torch.allclose(done.module.eval()(x), wide(x), atol=1e-4)


@pytest.mark.slow
def test_gates_choose_what_goes_and_the_budget_holds(plan: Any, tmp_path: Path) -> None:
    own, optimiser, samples, targets = sparsifier(plan, "gates")
    with torch.no_grad():  # the first half of the hidden units does nothing: no gate of theirs is worth anything
        own.module[3].weight[:, :24] *= 1e-3
        own.schedule.start(own._training)
    train(own.module, optimiser, samples, targets, own.schedule.begins + 2)
    gates = own.schedule.gates
    assert 0 <= float(gates.min()) < float(gates.max()) <= 1 and not own.schedule.latent
    states = (own.module.state_dict(), optimiser.state_dict(), own.state_dict())
    torch.save(copy.deepcopy(states), tmp_path / "checkpoint.pt")
    train(own.module, optimiser, samples, targets, STEPS - own.step)
    again, other, *_ = sparsifier(plan, "gates")
    module, moments, state = torch.load(tmp_path / "checkpoint.pt")
    again.module.load_state_dict(module)
    other.load_state_dict(moments)
    again.load_state_dict(state)
    train(again.module, other, samples, targets, STEPS - again.step)
    for name, parameter in own.module.named_parameters():
        assert torch.equal(parameter, dict(again.module.named_parameters())[name]), name
    done = own.finalize()
    assert done.plan.realised.flops <= 0.5 and done.exactness.passed
    (hidden,) = [group for group in done.plan.groups if group.size == 48]
    assert hidden.cut


def test_gradients_of_gates_are_those_of_the_loss(plan: Any) -> None:
    own, optimiser, samples, targets = sparsifier(plan, "gates")
    schedule, channels = own.schedule, own._training.channels
    schedule.gates.fill_(0.7)
    schedule._learn = lambda gradient: seen.append(gradient.clone())
    seen: list[Any] = []
    latent = {name: tensor.clone().requires_grad_(True) for name, tensor in schedule.latent.items()}
    gates = torch.full((channels.count,), 0.7, requires_grad=True)
    parameters = dict(own.module.named_parameters())

    def gated(name: str) -> Any:
        columns = schedule.columns[name]
        return torch.where(columns >= 0, gates[columns.clamp_min(0)], 1.0) * latent[name]

    loss = torch.func.functional_call(own.module, {name: gated(name) for name in latent}, (samples,))
    (loss - targets).square().mean().backward()
    with torch.no_grad():
        for name in latent:
            parameters[name].copy_(gated(name))
    optimiser.zero_grad()
    (own.module(samples) - targets).square().mean().backward()
    schedule.before_step(own._training)
    assert torch.allclose(seen[0], gates.grad, rtol=1e-4, atol=1e-7) and bool(gates.grad.any())
    for name, tensor in latent.items():
        assert torch.allclose(parameters[name].grad, tensor.grad, rtol=1e-4, atol=1e-7)
        assert torch.equal(parameters[name], tensor)


def test_what_is_no_cut_is_refused_and_so_is_one_that_somebody_filled_again(plan: Any) -> None:
    for what in ("2:4", plan.model_copy(update={"groups": ()})):
        with pytest.raises(PrunecError, match="PC045") as caught:
            sparsifier(what, "mask-sparsity")
        assert caught.value.diagnostic.hint
    own, optimiser, samples, targets = sparsifier(plan, "mask-sparsity", 4)
    train(own.module, optimiser, samples, targets, 4)
    with torch.no_grad():
        own.module[0].weight.add_(1.0)
    with pytest.raises(GateError, match="PC523"):
        own.finalize()
