"""Zeros that come while a module is trained: every schedule, checkpoints, any optimiser, and the way to a package."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import prunec
from prunec.diagnostics import PrunecError
from prunec.graph.shapes import constant
from tests.torch.modules import make

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
schedules = pytest.importorskip("prunec.torch.schedules")
pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_registry")]
STEPS = 24


def data(module: Any, x: Any) -> tuple[Any, Any]:
    """Samples like the example, and what the module itself says about them: a teacher."""
    torch.manual_seed(1)
    samples = torch.randn(64, *x.shape[1:])
    with torch.no_grad():
        return samples, module(samples)


def train(module: Any, optimiser: Any, samples: Any, targets: Any, steps: int) -> float:
    """The loss at the end. The samples' order is always the same."""
    for step in range(steps):
        chosen = torch.arange(16) + 16 * (step % 4)
        optimiser.zero_grad()
        loss = (module(samples[chosen]) - targets[chosen]).square().mean()
        loss.backward()
        optimiser.step()
    return float(loss.detach())


def sparsifier(name: str = "mlp", schedule: Any = "gmp", **options: Any) -> tuple[Any, Any, Any, Any]:
    module, x = make(name)
    samples, targets = data(module, x)
    optimiser = torch.optim.AdamW(module.parameters(), 1e-3, weight_decay=0.1)
    what = {"what": "unstructured", "sparsity": 0.75, "steps": STEPS, "example_inputs": x, **options}
    return prunec.torch.Sparsifier(module, optimiser, what.pop("what"), schedule, **what), optimiser, samples, targets


def shares(masks: Any) -> list[float]:
    return [round(1 - float(mask.float().mean()), 2) for mask in masks.values()]


@pytest.mark.parametrize(
    "schedule",  # those that have a test of their own are slow here
    [
        pytest.param(name, marks=[] if name in ("ast", "one-shot") else pytest.mark.slow)
        for name in sorted(set(schedules.SCHEDULES) - {"gates", "mask-sparsity"})  # these cut
    ],
)
@pytest.mark.parametrize("pattern", ["2:4", pytest.param("block:4x1", marks=pytest.mark.slow)])
def test_every_schedule_ends_with_the_pattern(schedule: str, pattern: str) -> None:
    if (schedule, pattern) == ("pdp", "block:4x1"):
        with pytest.raises(PrunecError, match="PC225"):
            sparsifier(what=pattern, schedule=schedule, sparsity=0.5)
        return
    own, optimiser, samples, targets = sparsifier(what=pattern, schedule=schedule, sparsity=0.5)
    train(own.module, optimiser, samples, targets, STEPS)
    assert own.sparsity == pytest.approx(0.5)
    train(own.module, optimiser, samples, targets, 3)  # final masks hold
    done = own.finalize()
    assert done.module is own.module and set(done.masks) == {"0.weight", "3.weight"}
    for name, mask in done.masks.items():
        weight = dict(done.module.named_parameters())[name].detach()
        assert not weight[~mask].any() and bool(weight[mask].any())
        if pattern == "2:4":
            assert bool((mask.reshape(-1, 4).sum(1) == 2).all())
        else:
            assert bool((mask.reshape(-1, 4, mask.shape[1]).all(1) | ~mask.reshape(-1, 4, mask.shape[1]).any(1)).all())
    assert {layer.pattern for layer in done.plan.layers} == {pattern, "dense"}


def test_gradual_zeros_come_along_the_cubic_curve() -> None:
    own, optimiser, samples, targets = sparsifier(schedule=schedules.create("gmp", STEPS))
    seen = []
    for _ in range(STEPS):
        train(own.module, optimiser, samples, targets, 1)
        seen.append(own.sparsity)
    wanted = [0.75 * (1 - (1 - min((step + 1) / 18, 1)) ** 3) for step in range(STEPS)]
    assert np.abs(np.array(seen) - wanted).max() < 0.02 and seen[17] == seen[-1] == pytest.approx(0.75, abs=0.01)


def test_what_grows_back_is_what_the_gradient_wants() -> None:
    from prunec.torch.schedules.granet import PruneAndRegrow

    own, optimiser, samples, targets = sparsifier(schedule=PruneAndRegrow(STEPS, updates=6))
    back = 0
    for _ in range(STEPS):
        before = {name: mask.clone() for name, mask in own.masks.items()}
        train(own.module, optimiser, samples, targets, 1)
        for name, mask in own.masks.items():
            grown = mask & ~before[name]
            back += int(grown.sum())
            if grown.any():
                size = dict(own.module.named_parameters())[name].grad.abs()
                left = ~mask & ~before[name]
                assert float(size[grown].min()) >= float(size[left].max()) * 0.999
    assert back > 0


def test_rewinding_goes_back_to_early_weights() -> None:
    from prunec.torch.schedules.imp import Rewinding

    schedule = Rewinding(STEPS, rounds=3)
    own, optimiser, samples, targets = sparsifier(schedule=schedule)
    early = None
    for step in range(1, STEPS + 1):
        train(own.module, optimiser, samples, targets, 1)
        if step == schedule.rewind_at:
            early = own.module[0].weight.detach().clone()
        if step in (8, 16):
            assert early is not None and not optimiser.state
            mask = own.masks["0.weight"]
            assert torch.equal(own.module[0].weight[mask], early[mask]) and shares(own.masks)[0] == (
                0.38 if step == 8 else 0.75
            )


def test_weights_decay_before_they_are_cut() -> None:
    own, optimiser, samples, targets = sparsifier(what="2:4", sparsity=None, schedule="ast", steps=40)
    before = own.module[0].weight.detach().abs().sum()
    train(own.module, optimiser, samples, targets, 29)
    weight = own.module[0].weight.detach()
    assert not shares(own.masks)[0] and bool((weight != 0).all())
    smallest = weight.abs().reshape(-1, 4).sort(1).values
    assert float(smallest[:, :2].sum()) < 0.15 * float(before) and float(smallest[:, 2:].sum()) > 0.5 * float(before)


def test_gradients_go_through_soft_masks() -> None:
    """What the optimiser is given is the derivative of the loss with respect to the weight behind the mask."""
    own, optimiser, samples, targets = sparsifier(schedule="pdp", steps=40)
    train(own.module, optimiser, samples, targets, 20)
    schedule = own.schedule
    latent = {name: tensor.clone().requires_grad_() for name, tensor in schedule.latent.items()}
    soft = {name: schedule._mask(name, tensor)[0] * tensor for name, tensor in latent.items()}
    for name, tensor in soft.items():
        assert torch.allclose(tensor, dict(own.module.named_parameters())[name], atol=1e-7)
    (torch.func.functional_call(own.module, soft, samples) - targets).square().mean().backward()
    optimiser.zero_grad()
    (own.module(samples) - targets).square().mean().backward()
    schedule.before_step(own._training)
    for name, tensor in latent.items():
        parameter = dict(own.module.named_parameters())[name]
        assert torch.allclose(parameter.grad, tensor.grad, rtol=1e-4, atol=1e-7) and torch.equal(parameter, tensor)


@pytest.mark.parametrize("kind", ["SGD", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("RMSprop", "Adam"))])
def test_masks_survive_any_optimiser(kind: str) -> None:
    module, x = make("flattened")
    samples, targets = data(module, x)
    options = {"momentum": 0.9} if kind != "Adam" else {}
    optimiser = getattr(torch.optim, kind)(module.parameters(), 1e-3, weight_decay=0.1, **options)
    own = prunec.torch.Sparsifier(
        module, optimiser, "unstructured", "one-shot", steps=1, sparsity=0.8, example_inputs=x
    )
    train(module, optimiser, samples, targets, 5)
    for name, mask in own.masks.items():
        weight = dict(module.named_parameters())[name]
        assert not weight[~mask].any() and bool((weight[mask] != 0).all())
    assert own.sparsity == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(
    "schedule", ["imp", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gmp", "ast", "pdp"))]
)
def test_a_checkpoint_goes_on_as_if_nothing_had_been(schedule: str, tmp_path: Path) -> None:
    whole, optimiser, samples, targets = sparsifier(schedule=schedule)
    train(whole.module, optimiser, samples, targets, 12)
    states = (whole.module.state_dict(), optimiser.state_dict(), whole.state_dict())
    torch.save(copy.deepcopy(states), tmp_path / "checkpoint.pt")
    train(whole.module, optimiser, samples, targets, STEPS - 12)
    again, other, _, _ = sparsifier(schedule=schedule)
    module, moments, own = torch.load(tmp_path / "checkpoint.pt")
    again.module.load_state_dict(module)
    other.load_state_dict(moments)
    again.load_state_dict(own)
    train(again.module, other, samples, targets, STEPS - 12)
    for name, parameter in whole.module.named_parameters():
        assert torch.equal(parameter, dict(again.module.named_parameters())[name]), name
    strange, *_ = sparsifier("flattened", schedule=schedule)
    with pytest.raises(PrunecError, match="PC042"):
        strange.load_state_dict(own)


def test_the_plan_compiles_to_the_same_zeros(tmp_path: Path) -> None:
    own, optimiser, samples, targets = sparsifier(what="2:4", sparsity=None, steps=4)
    train(own.module, optimiser, samples, targets, 4)
    done = own.finalize()
    done.plan.save(tmp_path / "plan.json")
    x = make("mlp")[1]
    built = prunec.compile(
        done.module, example_inputs=x, plan=tmp_path / "plan.json", measure=False, output=tmp_path / "out"
    )
    assert built.verification is not None and built.verification.patterns is not None
    assert built.verification.patterns.passed and built.verification.quality.pruned > 0.999  # type: ignore[union-attr]
    stored = ir.load(tmp_path / "out/model.onnx").graph.initializers.values()
    zeros = sorted(int((array == 0).sum()) for v in stored if (array := constant(v)) is not None and array.ndim == 2)
    assert zeros[-2:] == sorted(int((~mask).sum()) for mask in done.masks.values())


def test_a_plan_may_say_what_goes(tmp_path: Path) -> None:
    module, x = make("mlp")
    planned = prunec.plan(module, example_inputs=x, pattern="2:4", permute=False, samples=8).plan
    optimiser = torch.optim.SGD(module.parameters(), 1e-3)
    own = prunec.torch.Sparsifier(module, optimiser, planned, "one-shot", steps=1, example_inputs=x)
    assert shares(own.masks) == [0.5, 0.5]
    cut = prunec.plan(module, example_inputs=x, flops=0.5, samples=8).plan
    with pytest.raises(PrunecError, match="PC045"):
        prunec.torch.Sparsifier(module, optimiser, cut, "one-shot", steps=1, example_inputs=x)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(PrunecError, match="PC203"):
        sparsifier(schedule="cosine")
    with pytest.raises(PrunecError, match="PC208"):
        sparsifier(steps=None)
    with pytest.raises(PrunecError, match="PC208"):
        sparsifier(steps=0)
    with pytest.raises(PrunecError, match="PC224"):
        sparsifier(sparsity=None)
    with pytest.raises(PrunecError, match="PC225"):
        sparsifier(what="7:14", sparsity=None, exclude=["*"])
    own, *_ = sparsifier()
    with pytest.raises(PrunecError, match="PC046") as caught:
        own.finalize()
    assert "step 0 of 24" in caught.value.diagnostic.message
    module, x = make("lstm")
    optimiser = torch.optim.SGD(module.parameters(), 1e-3)
    with pytest.raises(PrunecError, match="PC044"):
        prunec.torch.Sparsifier(module, optimiser, "unstructured", steps=5, sparsity=0.5, example_inputs=x)
