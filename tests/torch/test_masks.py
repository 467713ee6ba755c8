"""Sparsity patterns in torch modules: zeros in the module's own parameters, kept while it is trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import prunec
from prunec.diagnostics import PrunecError
from tests.graph.checks import run
from tests.torch.modules import make

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_registry")]


def train(module: Any, masks: Any, x: Any, steps: int = 3) -> None:
    """A few steps with momentum and weight decay, which would both move a zero."""
    optimiser = torch.optim.AdamW(module.parameters(), 1e-2, weight_decay=0.1)
    prunec.torch.hold_zeros(optimiser, module, masks)
    module.train()
    for _ in range(steps):
        optimiser.zero_grad()
        module(x).square().mean().backward()
        optimiser.step()
    module.eval()


def density(module: Any, masks: Any) -> list[float]:
    return [float((dict(module.named_parameters())[name] != 0).float().mean()) for name in sorted(masks)]


def assert_same_as_onnx(pruned: Any, x: Any) -> None:
    (want,) = run(pruned.onnx, {str(pruned.onnx.graph.inputs[0].name): x.numpy()})
    got = pruned.module.eval()(x).detach().numpy()
    assert np.abs(got - want).max() <= 2e-5 * np.abs(want).max()


def test_two_of_four_trains_and_reloads() -> None:
    module, x = make("mlp")
    pruned = prunec.prune(module, x, pattern="2:4", samples=16)
    assert pruned.kind == "module" and type(pruned.module) is type(module)
    assert sorted(pruned.masks) == ["0.weight", "3.weight"] and set(pruned.module.state_dict()) >= set(
        module.state_dict()
    )
    for name in pruned.masks:
        rows = dict(pruned.module.named_parameters())[name]
        assert ((rows != 0).reshape(-1, 4).sum(1) <= 2).all()
    assert_same_as_onnx(pruned, x)
    before = pruned.module[0].weight.detach().clone()
    train(pruned.module, pruned.masks, x)
    assert not torch.equal(before, pruned.module[0].weight)
    assert density(pruned.module, pruned.masks) == [0.5, 0.5]
    again = prunec.torch.load_pruned(make("mlp", seed=7)[0], pruned.plan, pruned.module.state_dict(), x)
    assert torch.equal(again.module.eval()(x), pruned.module(x))
    assert all(torch.equal(again.masks[name], mask) for name, mask in pruned.masks.items())


def test_without_the_masks_the_zeros_go() -> None:
    """The test above could fail."""
    module, x = make("mlp")
    pruned = prunec.prune(module, x, pattern="2:4", samples=16)
    train(pruned.module, {}, x)
    assert min(density(pruned.module, pruned.masks)) > 0.9
    prunec.torch.apply_masks(pruned.module, pruned.masks)
    assert density(pruned.module, pruned.masks) == [0.5, 0.5]


def test_the_hook_can_be_taken_off() -> None:
    layer = torch.nn.Linear(4, 4)
    optimiser = torch.optim.SGD(layer.parameters(), 0.1)
    handle = prunec.torch.hold_zeros(optimiser, layer, {"weight": torch.eye(4, dtype=torch.bool)})
    assert int((layer.weight != 0).sum()) == 4
    handle.remove()
    layer(torch.ones(1, 4)).sum().backward()
    optimiser.step()
    assert bool((layer.weight != 0).all())


def test_zeros_survive_a_folded_norm() -> None:
    module, x = make("residual")
    pruned = prunec.prune(module, x, pattern="unstructured", sparsity=0.5, include=["*"], samples=16)
    assert pruned.kind == "module"
    assert {"stem.weight", "body.weight", "head.weight"} <= set(pruned.masks)
    assert all(float((~mask).float().mean()) >= 0.49 for mask in pruned.masks.values())
    assert_same_as_onnx(pruned, x)


def test_channels_and_zeros_together_in_a_graph() -> None:
    module, x = make("hard_coded")
    pruned = prunec.prune(module, x, pattern="block:4x1", sparsity=0.5, params=0.7, include=["*"], samples=16)
    assert pruned.kind == "graph" and sum(p.numel() for p in pruned.module.parameters()) < 0.75 * sum(
        p.numel() for p in module.parameters()
    )
    assert density(pruned.module, pruned.masks) == [0.5, 0.5]
    train(pruned.module, pruned.masks, x)
    assert density(pruned.module, pruned.masks) == [0.5, 0.5]


def test_channels_alone_have_no_masks() -> None:
    module, x = make("mlp")
    assert not prunec.prune(module, x, params=0.7, samples=16, compensate=False).masks


def test_a_pattern_that_does_not_exist_is_refused() -> None:
    module, x = make("mlp")
    with pytest.raises(PrunecError, match="PC215"):
        prunec.prune(module, x, pattern="3:2", samples=16)
