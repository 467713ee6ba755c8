"""A module in, a smaller module out: first its structure, then its numbers, its training and its reloading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import prunec
from prunec.diagnostics import PrunecError
from prunec.plan.plan import Plan
from tests.graph.checks import run
from tests.torch.modules import MODULES, make

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
nn = torch.nn
pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_registry")]

GRAPH = {
    "encoder_layer": ("nn.MultiheadAttention is as wide inside as outside", "nn.Linear"),
    "hard_coded": ("shape", "flat"),
    "lstm_stacked": ("nn.LSTM gives all of its layers one hidden size", "one nn.LSTM for each layer"),
    # Seven pairs stay of eight, and the halves that its `forward` interleaves no longer hold partners at equal places.
    "shuffle": ("its outputs would differ", "flat"),
}
"""Modules that cannot take their cut, and words of the reason and of what to do."""


def onnx_outputs(model: ir.Model, *inputs: Any) -> list[np.ndarray]:
    names = [value.name for value in model.graph.inputs]
    return run(model, {str(n): x.numpy() for n, x in zip(names, inputs, strict=True)})


def parameters(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())


def outputs(module: Any, x: Any) -> list[Any]:
    found = module(x)
    return list(found) if isinstance(found, tuple) else [found]


def losses(module: Any, x: Any, steps: int = 4) -> list[float]:
    """The squared distance to a fixed target during a few steps of gradient descent in training mode."""
    module.train()
    torch.manual_seed(1)
    targets = [torch.randn_like(y) for y in outputs(module, x)]
    optimiser = torch.optim.SGD(module.parameters(), 1e-2)
    found = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = sum((y - t).square().mean() for y, t in zip(outputs(module, x), targets, strict=True))
        loss.backward()
        assert all(p.grad is not None for p in module.parameters() if p.requires_grad)
        optimiser.step()
        found.append(float(loss))
    return found


QUICK = "encoder_layer lstm_both residual shared_heads transposed".split()
CASES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in MODULES]


@pytest.mark.parametrize("name", CASES)
def test_every_module_gets_smaller_agrees_trains_and_reloads(name: str) -> None:
    module, x = make(name)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    pruned = prunec.prune(module, x, params=0.7, samples=16, round_to=2)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert parameters(pruned.module) < parameters(module)
    assert pruned.exactness is not None and pruned.exactness.passed

    notes = [w for w in pruned.warnings if w.code == "PC041"]
    reasons = [w.message for w in notes]
    if name in GRAPH:
        assert pruned.kind == "graph" and isinstance(pruned.module, torch.fx.GraphModule)
        assert len(notes) == 1 and GRAPH[name][0] in reasons[0] and GRAPH[name][1] in (notes[0].hint or "")
    else:
        assert (pruned.kind, reasons) == ("module", [])
        assert type(pruned.module) is type(module)
        assert set(pruned.module.state_dict()) >= set(before)

    for got, want in zip(outputs(pruned.module, x), onnx_outputs(pruned.onnx, x), strict=True):
        assert np.abs(got.detach().numpy() - want).max() <= 1e-5 * max(np.abs(want).max(), 1e-30) * 2

    history = losses(pruned.module, x)
    assert history[-1] < history[0]
    fresh, _ = make(name, seed=7)
    again = prunec.torch.load_pruned(fresh, pruned.plan, pruned.module.state_dict(), x)
    assert again.kind == pruned.kind
    for a, b in zip(outputs(again.module.eval(), x), outputs(pruned.module.eval(), x), strict=True):
        assert torch.equal(a, b)


def test_known_attributes_follow_the_parameters() -> None:
    module, x = make("residual")
    new = prunec.prune(module, x, params=0.5, samples=16, round_to=8).module
    width = new.stem.weight.shape[0]
    assert width < 32
    assert (new.stem.out_channels, new.body.in_channels, new.body.out_channels) == (width, width, width)
    assert (new.depthwise.groups, new.depthwise.in_channels, new.depthwise.out_channels) == (width, width, width)
    assert (new.norm1.num_features, len(new.norm1.running_mean)) == (width, width)
    assert (new.point.out_channels, new.head.in_features) == (new.head.weight.shape[1],) * 2
    assert module.stem.out_channels == 32


def test_heads_and_recurrent_widths_follow() -> None:
    module, x = make("self_attention")
    new = prunec.prune(module, x, params=0.5, compensate=False, samples=16).module
    assert new.num_heads == new.q.weight.shape[0] // 8 < 4
    module, x = make("lstm_both")
    new = prunec.prune(module, x, params=0.6, compensate=False, samples=16).module
    assert new.layer.hidden_size == new.layer.weight_hh_l0.shape[1] == new.out.in_features // 2 < 16
    assert new.layer.input_size == new.embed.embedding_dim == new.embed.weight.shape[1]


def test_the_batch_norm_takes_what_compensation_adds() -> None:
    """Convolutions without biases: the refitted ones are in the norms, which go on normalising."""
    module, x = make("residual")
    data = torch.randn(64, 3, 8, 8)
    plain, refitted = (prunec.prune(module, x, params=0.6, calib=data, compensate=c) for c in (False, True))
    assert refitted.kind == "module" and refitted.module.body.bias is None
    assert not torch.equal(plain.module.norm2.bias, refitted.module.norm2.bias)
    assert torch.equal(plain.module.norm2.weight, refitted.module.norm2.weight)
    errors = [float((p.module.eval()(data) - module(data)).square().mean()) for p in (plain, refitted)]
    assert errors[1] < errors[0]


def test_a_norm_that_multiplies_by_zero_can_be_undone() -> None:
    module, x = make("residual")
    with torch.no_grad():
        module.norm2.weight[::2] = 0
    pruned = prunec.prune(module, x, params=0.7, calib=torch.randn(64, 3, 8, 8))
    assert pruned.kind == "module"
    (want,) = onnx_outputs(pruned.onnx, x)
    assert np.allclose(pruned.module.eval()(x).detach().numpy(), want, atol=1e-5 * np.abs(want).max())


def test_tied_weights_stay_tied() -> None:
    module, x = make("tied")
    new = prunec.prune(module, x, params=0.6, samples=16, round_to=4).module
    assert new.head.weight is new.embed.weight
    assert new.embed.embedding_dim == new.embed.weight.shape[1] == new.head.in_features


def test_computed_weights_fall_back_to_the_graph() -> None:
    torch.manual_seed(0)
    normed = torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 16, 3))
    module = nn.Sequential(normed, nn.ReLU(), nn.Conv2d(16, 4, 3)).eval()
    pruned = prunec.prune(module, torch.randn(2, 3, 8, 8), params=0.6, samples=16)
    assert pruned.kind == "graph"
    assert any("computed from parameters" in w.message for w in pruned.warnings if w.code == "PC041")


def test_plans_are_replayed_and_saved_states_reload(tmp_path: Path) -> None:
    module, x = make("unet")
    made = prunec.plan(module, params=0.7, example_inputs=x, samples=16)
    made.plan.save(tmp_path / "plan.json")
    pruned = prunec.prune(module, x, plan=tmp_path / "plan.json", samples=16)
    assert pruned.plan == made.plan == Plan.load(tmp_path / "plan.json")
    torch.save(pruned.module.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt")
    again = prunec.torch.load_pruned(MODULES["unet"][0], tmp_path / "plan.json", state, x)
    assert torch.equal(again.module.eval()(x), pruned.module.eval()(x))
    with pytest.raises(PrunecError, match="PC042"):
        prunec.torch.load_pruned(module, tmp_path / "plan.json", module.state_dict(), x)


def test_options_are_those_of_compile() -> None:
    module, x = make("mlp")
    with pytest.raises(PrunecError, match="PC220"):
        prunec.prune(module, x)
    kept = prunec.prune(module, x, sparsity=0.3, criterion="l1", exclude=["0.weight"], samples=16, compensate=False)
    assert kept.module[0].weight.shape == (48, 32)
    assert kept.module[3].weight.shape[0] < 24
    assert kept.plan.criterion == "l1"


STRUCTURES = [
    pytest.param("depth,channels", 0.6, True),
    pytest.param("residual", 0.8, False),
    *(
        pytest.param(structures, params, compensate, marks=pytest.mark.slow)
        for structures, params, compensate in [
            ("depth,channels", 0.6, False), ("residual", 0.8, True), ("depth", 0.8, True), ("depth", 0.8, False),
            ("head-width", 0.97, True), ("head-width", 0.97, False),
        ]
    ),
]  # fmt: skip


@pytest.mark.parametrize(("structures", "params", "compensate"), STRUCTURES)
def test_plans_of_structures_are_replayed_and_their_states_reload(
    structures: str, params: float, compensate: bool, tmp_path: Path
) -> None:
    """The graph that comes out, its weights to the bit, and a state with what stands for removed blocks."""
    module, x = make("vision")
    pruned = prunec.prune(module, x, params=params, structures=structures, samples=16, compensate=compensate)
    pruned.plan.save(tmp_path / "plan.json")
    again = prunec.prune(module, x, plan=tmp_path / "plan.json")
    assert (again.kind, again.plan) == ("graph", pruned.plan)
    assert parameters(again.module) < parameters(module)
    assert again.exactness is not None and again.exactness.passed
    states = [found.module.state_dict() for found in (pruned, again)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    loaded = prunec.torch.load_pruned(make("vision", seed=7)[0], tmp_path / "plan.json", states[0], x)
    assert torch.equal(loaded.module.eval()(x), pruned.module.eval()(x))
    if "depth" in structures and compensate:
        assert any(key.endswith("_mean") for key in states[0]), "a block left its mean"


def test_cutting_more_than_channels_gives_a_graph() -> None:
    module, x = make("vision")
    pruned = prunec.prune(module, x, params=0.6, structures="depth,channels", samples=16, compensate=False)
    assert pruned.kind == "graph" and parameters(pruned.module) < parameters(module)
    assert any("more than channels" in w.message for w in pruned.warnings if w.code == "PC041")
    (want,) = onnx_outputs(pruned.onnx, x)
    assert np.allclose(pruned.module(x).detach().numpy(), want, atol=2e-5 * np.abs(want).max())
    again = prunec.torch.load_pruned(module, pruned.plan, pruned.module.state_dict(), x)
    assert torch.equal(again.module(x), pruned.module(x))
