"""Reordered channels: which may change places, and that the network computes what it did."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from prunec.graph import Analysis
from prunec.graph.orders import analyse_orders, cells, moved
from prunec.passes.permute.channels import permute_channels
from prunec.verify.unrounded import without_rounding
from tests.graph.builder import Builder
from tests.graph.checks import prepare, random_feeds, relative_error, run, run_float64
from tests.graph.micros_residual import RESIDUALS
from tests.graph.test_micro import MICROS, NO_REFERENCE, build


def shuffled(analysis: Analysis, seed: int) -> np.ndarray:
    """Every cell in a random order."""
    random = np.random.default_rng(seed)
    source = np.arange(analysis.channel_count)
    for cell in cells(analysis):
        source[cell.classes] = random.permutation(cell.classes)
    return source


def assert_same(model: ir.Model, *, in_float64: bool, seed: int = 0) -> ir.Model:
    analysis = analyse_orders(model)
    source = shuffled(analysis, seed)
    permuted = permute_channels(model, analysis, source)
    feeds = random_feeds(model, np.random.default_rng(seed))
    if in_float64:
        assert relative_error(run_float64(model, feeds), run_float64(permuted, feeds)) <= 1e-12
    else:
        before, after = (run(without_rounding(m), feeds, optimise=False) for m in (model, permuted))
        assert relative_error(before, after) <= 1e-5
    return permuted


def sizes(model: ir.Model) -> list[int]:
    return [len(cell.classes) for cell in cells(analyse_orders(model))]


@pytest.mark.parametrize("name", [n for n in MICROS if MICROS[n].free])
def test_every_micro_graph_computes_the_same(name: str) -> None:
    canonical, _ = prepare(build(name))
    assert_same(canonical, in_float64=name not in NO_REFERENCE, seed=sorted(MICROS).index(name))


@pytest.mark.parametrize("name", RESIDUALS)
def test_streams_under_norms_may_be_reordered(name: str) -> None:
    builder = Builder(seed=sorted(RESIDUALS).index(name), opset=RESIDUALS[name].opset)
    RESIDUALS[name].build(builder)
    assert_same(prepare(builder.model())[0], in_float64=True)


SIZES = {
    "conv_relu_conv": [16],
    "residual": [16, 16],
    "concat": [16, 8],
    "squeeze_excite": [16, 4],
    "grouped": [4, 8],  # positions, in all groups at once
    "depthwise": [16],
    "channel_shuffle": [16],
    "static_slice": [8, 8],  # what the slice takes, and the rest
    "split_multiply": [8],
    "reduce_over_channels": [16, 16],  # a mean over channels has no order
    "nhwc_layer_norm": [16, 24],
    "attention": [6] * 8,  # the width of every head by itself: queries with keys, and values
    "packed_qkv": [6] * 8,
    "rope": [6] * 4,  # rotation pairs positions of queries and keys: only values are free
    "grouped_query": [2],
    "gru": [12, 16],
    "weight_blocks": [4, 10],  # blocks that share a scale
}


@pytest.mark.parametrize("name", SIZES)
def test_what_may_change_places(name: str) -> None:
    assert sizes(prepare(build(name))[0]) == SIZES[name]


def test_graph_outputs_stay_as_they_are() -> None:
    builder = Builder(seed=1)
    builder.output(builder.conv(builder.input("x", [1, 3, 8, 8]), 16))
    assert sizes(prepare(builder.model())[0]) == []


def test_an_order_across_cells_is_not_exact() -> None:
    """What the cells are there for: channels of two heads, of the values."""
    model, _ = prepare(build("attention"))
    analysis = analyse_orders(model)
    first, second = cells(analysis)[-2:]
    source = np.arange(analysis.channel_count)
    source[[first.classes[0], second.classes[0]]] = source[[second.classes[0], first.classes[0]]]
    feeds = random_feeds(model, np.random.default_rng(0))
    found = run_float64(permute_channels(model, analysis, source), feeds)
    assert relative_error(run_float64(model, feeds), found) > 1e-3


def test_positions_of_a_class_keep_their_order() -> None:
    ids = np.array([0, 1, 2, 0, 1, 2])
    assert moved(ids, np.array([2, 0, 1])).tolist() == [2, 0, 1, 5, 3, 4]
    assert moved(np.array([4, 4, 7, 7]), np.array([0, 1, 2, 3, 7, 5, 6, 4])).tolist() == [2, 3, 0, 1]


def test_the_model_itself_is_left_alone_and_tied_weights_stay_tied() -> None:
    model, _ = prepare(build("tied_linear"))
    before = {name: value.const_value.numpy().copy() for name, value in model.graph.initializers.items()}  # type: ignore[union-attr]
    permuted = assert_same(model, in_float64=True)
    assert permuted.graph.initializers.keys() == before.keys()
    for name, value in model.graph.initializers.items():
        assert value.const_value is not None and np.array_equal(value.const_value.numpy(), before[name])


def test_weights_shared_by_layers_that_are_reordered_differently_are_copied() -> None:
    model, _ = prepare(build("equal_constants"))
    permuted = assert_same(model, in_float64=True)
    analysis = analyse_orders(model)
    assert len(cells(analysis)) == 2 and len(permuted.graph.initializers) >= len(model.graph.initializers)
