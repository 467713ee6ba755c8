"""The cost model against the cost of the model that is really cut: equal, not close."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from prunec.graph import Analysis
from prunec.graph.cost import PARAMETER_TYPES, model_macs, parameter_count
from prunec.passes.slice_channels import slice_channels
from prunec.plan.cost_model import CostModel
from tests.criteria.small import attention, branches, chain, free, grouped, prepare
from tests.graph.builder import Builder
from tests.graph.checks import random_alive

MODELS = {"chain": chain, "grouped": grouped, "branches": branches, "attention": attention}


def stored_bytes(model: ir.Model) -> list[int]:
    tensors = [value.const_value for value in model.graph.initializers.values()]
    return [tensor.nbytes for tensor in tensors if tensor is not None and tensor.dtype in PARAMETER_TYPES]


def assert_exact_costs(model: ir.Model, analysis: Analysis, shares: list[float]) -> None:
    costs = CostModel(model, analysis)
    dense = costs.evaluate(np.ones(analysis.channel_count, bool))
    assert (dense.params, dense.macs) == (parameter_count(model), model_macs(model))
    for seed, share in enumerate(shares):
        alive = random_alive(analysis, share, np.random.default_rng(seed))
        cut = slice_channels(model, analysis, alive)
        found = costs.evaluate(alive)
        assert (found.params, found.macs) == (parameter_count(cut), model_macs(cut))
        assert found.bytes == sum(stored_bytes(cut))
        assert found.params < dense.params


@pytest.mark.parametrize("name", MODELS)
def test_costs_are_those_of_the_cut_model(name: str) -> None:
    assert_exact_costs(*prepare(MODELS[name]()), [0.2, 0.5, 0.9])


def test_a_small_shared_tensor_is_counted_once_per_way_it_is_cut() -> None:
    b = Builder()
    x = b.input("x", [1, 3, 6, 6])
    scale = b.weight(1, 16, 1, 1)
    left, right = (b.op("Mul", [b.conv(x, 16), scale]) for _ in range(2))
    b.output(b.conv(left, 4), b.conv(right, 4))
    model, analysis = prepare(b.model())
    assert_exact_costs(model, analysis, [0.25, 0.5])
    group = free(analysis)[0]
    mask = np.arange(16) < 8
    cut_one = CostModel(model, analysis).evaluate(analysis.alive({group.id: mask}))
    cut_both = CostModel(model, analysis).evaluate(analysis.alive({g.id: mask for g in free(analysis)}))
    one_sided = (3 * 9 + 1) * 8 + 4 * 9 * 8
    assert cut_one.params - cut_both.params == one_sided + 16  # the whole tensor and its half, against one half


def test_weights_counts_only_the_prunable_ones() -> None:
    model, analysis = prepare(chain())
    weight = free(analysis)[0].producers()[0].tensor
    alive = analysis.alive({free(analysis)[0].id: np.arange(16) < 4})
    assert CostModel(model, analysis, [weight]).evaluate(alive).weights == 4 * 3 * 9
    assert CostModel(model, analysis).evaluate(alive).weights == 0


@pytest.mark.parametrize("name", ["bn_resnet18", "hf_gpt2", "timm_ghostnet_100", "tv_shufflenet_v2_x0_5", "rec_dlrm"])
def test_costs_are_exact_on_exported_graphs(name: str, graphs_dir: Path) -> None:
    sys.path.insert(0, str(graphs_dir))
    try:
        from load_graph import load
    finally:
        sys.path.remove(str(graphs_dir))
    assert_exact_costs(*prepare(ir.from_proto(load(str(graphs_dir / f"{name}.onnx.gz")))), [0.5])
