"""Whole experts behind a softmax or a top-k (class C): first the groups, then the numbers, then what they save."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from prunec.diagnostics import PrunecError
from prunec.graph import Analysis, Group, analyse
from prunec.graph.cost import model_macs, parameter_count
from prunec.passes.canonicalise import canonicalise
from prunec.passes.mask_channels import mask_channels
from prunec.passes.slice_channels import slice_channels
from prunec.plan.cost_model import CostModel
from prunec.verify.exactness import random_trial
from tests.graph.builder import Builder
from tests.graph.checks import assert_exact, random_alive, random_feeds, relative_error, run, run_float64
from tests.graph.micros_experts import EXPERT_MICROS
from tests.graph.micros_gates import GATES, PINNED, E, K, Layer, network

LOOPS = ["softmax_split", "softmax_added_up", "chosen_of_all", "one_hot_loop", "where_loop"]


def build(layers: list[tuple[Layer, int, int]], seed: int = 0) -> ir.Model:
    b = Builder(seed=seed, opset=20)
    network(b, layers)
    return canonicalise(b.model())


def named(name: str) -> tuple[ir.Model, Analysis]:
    model = build([(GATES[name].layer, E, K)], seed=sorted(GATES).index(name))
    return model, analyse(model, experts=True)


def experts_of(analysis: Analysis) -> list[Group]:
    return [g for g in analysis.groups if g.experts is not None and g.pinned is None]


@pytest.mark.parametrize("name", GATES)
def test_experts_are_one_group_and_pinned_unless_asked_for(name: str) -> None:
    model, analysis = named(name)
    (group,) = experts_of(analysis)
    assert (group.size, group.kind, group.experts) == (E, "C", GATES[name].least)
    plain = analyse(model)
    assert not experts_of(plain)
    assert "PC105" in {g.pinned.code for g in plain.groups if g.pinned is not None}


@pytest.mark.parametrize("name", PINNED)
def test_what_cannot_be_renumbered_or_left_out_is_pinned_with_the_reason(name: str) -> None:
    layer, code = PINNED[name]
    analysis = analyse(build([(layer, E, K)]), experts=True)
    assert not experts_of(analysis)
    assert code in {g.pinned.code for g in analysis.groups if g.experts is not None and g.pinned is not None}
    assert all(g.pinned.reason and g.pinned.node for g in analysis.groups if g.pinned is not None)


@pytest.mark.parametrize("name", GATES)
def test_numbers_in_float32_and_float64(name: str) -> None:
    model, analysis = named(name)
    for seed in range(3):
        alive = random_trial(analysis, seed).alive
        assert not alive[experts_of(analysis)[0].channels].all() or seed
        feeds = random_feeds(model, np.random.default_rng(seed))
        masked, cut = mask_channels(model, analysis, alive), slice_channels(model, analysis, alive)
        assert relative_error(run(masked, feeds), run(cut, feeds)) <= 1e-5
        assert relative_error(run_float64(masked, feeds), run_float64(cut, feeds)) <= 1e-12


@pytest.mark.parametrize("name", ["softmax_stacked", "one_hot", "one_hot_loop"])
def test_the_reference_lets_the_gate_choose_among_those_left(name: str) -> None:
    """Every token still has its weights adding up to one: another function than leaving out what an expert gave."""
    model, analysis = named(name)
    (group,) = experts_of(analysis)
    alive = analysis.alive({group.id: np.arange(E) % 2 == 0})
    feeds = random_feeds(model, np.random.default_rng(0))
    dense, cut = run(model, feeds), run(slice_channels(model, analysis, alive), feeds)
    assert relative_error(dense, cut) > 1e-2
    assert relative_error(run(mask_channels(model, analysis, alive), feeds), cut) <= 1e-5


@pytest.mark.parametrize("name", LOOPS)
def test_branches_leave_with_their_weights(name: str) -> None:
    model, analysis = named(name)
    (group,) = experts_of(analysis)
    keep = np.arange(E) >= E - K
    cut = slice_channels(model, analysis, analysis.alive({group.id: keep}))
    products = [sum(node.op_type in ("MatMul", "Gemm") for node in m.graph) for m in (model, cut)]
    assert products[0] - products[1] == 2 * (E - K)
    whole = {m.tensor for m in group.members if m.role == "carrier" and not m.index.any()}
    assert len(whole) >= 2, "the weights of expert 0 are members as they are"


@pytest.mark.parametrize("name", GATES)
def test_costs_are_those_of_the_cut_model(name: str) -> None:
    model, analysis = named(name)
    costs = CostModel(model, analysis)
    for seed in range(3):
        alive = random_alive(analysis, 0.4, np.random.default_rng(seed))
        cut = slice_channels(model, analysis, alive)
        found = costs.evaluate(alive)
        assert (found.params, found.macs) == (parameter_count(cut), model_macs(cut))


def test_fewer_experts_than_each_token_is_given_are_refused() -> None:
    _, analysis = named("one_hot")
    (group,) = experts_of(analysis)
    analysis.alive({group.id: np.arange(E) < K})
    with pytest.raises(PrunecError, match="PC201"):
        analysis.alive({group.id: np.arange(E) < K - 1})


@pytest.mark.parametrize("name", ["experts_stacked_sigmoid", "experts_einsum_sigmoid"])
def test_sigmoid_gates_stay_exact(name: str) -> None:
    b = Builder(seed=1)
    EXPERT_MICROS[name].build(b)
    model = canonicalise(b.model())
    assert [(g.size, g.kind) for g in analyse(model, experts=True).groups] == [
        (g.size, g.kind) for g in analyse(model).groups
    ]


@pytest.mark.parametrize("first", range(0, 60, 15))
def test_random_networks_of_experts(first: int) -> None:
    """Layers of all kinds behind each other, cut at random together with every width."""
    seen = 0
    for seed in range(first, first + 15):
        rng = np.random.default_rng([seed, 3])
        layers: list[tuple[Layer, int, int]] = []
        for _ in range(int(rng.integers(1, 4))):
            e = int(rng.integers(2, 8))
            name = str(rng.choice(sorted(GATES)))
            layers.append((GATES[name].layer, e, int(rng.integers(1, e + 1))))
        model = build(layers, seed=seed)
        analysis = analyse(model, experts=True)
        assert len(experts_of(analysis)) == len(layers)
        seen += len(layers)
        assert_exact(model, analysis, seed, share=float(rng.choice([0.25, 0.5, 0.9])))
    assert seen >= 15


def test_an_exported_mixture_of_experts(graphs_dir: Path) -> None:
    sys.path.insert(0, str(graphs_dir))
    try:
        from load_graph import load
    finally:
        sys.path.remove(str(graphs_dir))
    model = canonicalise(ir.from_proto(load(str(graphs_dir / "moe_soft.onnx.gz"))))
    analysis = analyse(model, experts=True)
    (group,) = experts_of(analysis)
    assert (group.size, group.kind, group.experts) == (4, "C", 1)
    assert [(m.tensor, m.axis) for m in group.producers()] == [("onnx::MatMul_35", 1), ("w1", 0)]
    assert ("w2", 0) in {(m.tensor, m.axis) for m in group.members}
    assert_exact(model, analysis, seed=0)
