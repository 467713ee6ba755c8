"""Orders for whole models: what the layers keep, what solving says, and what a cut leaves of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from prunec.graph.orders import analyse_orders
from prunec.passes.compensate import Options, compensate
from prunec.passes.permute import Found, HeldLayer, Trial, find_orders, held_layers, permute_channels
from prunec.passes.slice_channels import slice_channels
from prunec.passes.sparsify import LayerPattern
from prunec.patterns import parse
from prunec.plan.layers import choose_layers
from tests.graph.builder import Builder
from tests.graph.checks import prepare, random_feeds, relative_error, run_float64
from tests.graph.test_micro import build
from tests.passes.compensate_samples import Data, input_shape


def chain(b: Builder) -> str:
    y = b.relu(b.conv(b.input("x", [2, 8, 10, 10]), 16))
    return b.conv(b.relu(b.conv(y, 24)), 8)


def stream(b: Builder) -> str:
    """A residual stream that four layers read and write."""
    stem = b.relu(b.conv(b.input("x", [2, 8, 10, 10]), 32))
    y = b.op("Add", [b.conv(b.relu(b.conv(stem, 16)), 32), stem])
    return b.conv(b.relu(b.op("Add", [b.conv(b.relu(b.conv(y, 16)), 32), y])), 8)


def grouped(b: Builder) -> str:
    y = b.relu(b.conv(b.input("x", [2, 8, 10, 10]), 32))
    return b.conv(b.relu(b.conv(y, 32, group=2)), 8)


def feed_forward(b: Builder) -> str:
    x = b.input("x", [2, 6, 16])
    return b.linear(b.relu(b.linear(b.op("LayerNormalization", [b.linear(x, 24), b.weight(24)]), 64)), 16)


NETS: tuple[Callable[[Builder], str], ...] = (chain, stream, grouped, feed_forward)
PATTERNS = [("2:4", 0.5), ("block:4x1", 0.6), ("block:1x4", 0.6), ("block:4x4", 0.6)]


def model_of(net: Callable[[Builder], str]) -> ir.Model:
    b = Builder(seed=5)
    b.output(net(b))
    return prepare(b.model())[0]


def sparse(model: ir.Model, name: str, level: float) -> dict[str, LayerPattern]:
    plans = choose_layers(model, parse(name), level, include=["*"])
    return {plan.node: LayerPattern(parse(name), plan.level) for plan in plans if plan.pattern != "dense"}


def held(model: ir.Model, name: str, level: float) -> list[HeldLayer]:
    return held_layers(model, sparse(model, name, level), analyse_orders(model), {}, lambda *_: None)


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.__name__)
@pytest.mark.parametrize(("name", "level"), PATTERNS)
def test_an_order_keeps_more_and_changes_nothing(net: Callable[[Builder], str], name: str, level: float) -> None:
    model = model_of(net)
    orders = analyse_orders(model)
    found = find_orders(held(model, name, level), orders, seed=1)
    assert found and all(order.kept_after > order.kept_before for order in found)
    source = np.arange(orders.channel_count)
    for order in found:
        source[order.classes] = order.source
    permuted = permute_channels(model, orders, source)
    feeds = random_feeds(model, np.random.default_rng(0))
    assert relative_error(run_float64(model, feeds), run_float64(permuted, feeds)) <= 1e-12
    before, after = (
        np.mean([layer.kept(np.arange(orders.channel_count)) for layer in held(m, name, level)])
        for m in (model, permuted)
    )
    assert after > before  # counted in the reordered weights themselves


def test_the_same_seed_finds_the_same_orders() -> None:
    model = model_of(stream)
    orders = analyse_orders(model)
    first, again = (find_orders(held(model, "2:4", 0.5), orders, seed=2) for _ in range(2))
    assert [order.source.tolist() for order in first] == [order.source.tolist() for order in again]


def test_heads_are_ordered_by_themselves() -> None:
    """Values have 4 heads of 6: no group of four fits a head, but pairs do."""
    model, _ = prepare(build("attention"))
    orders = analyse_orders(model)
    assert find_orders(held(model, "2:4", 0.5), orders) == []
    found = find_orders(held(model, "1:2", 0.5), orders)
    assert len(found) == 1 and len(found[0].classes) == 24
    heads = orders.rows[-4:]
    places = dict(zip(found[0].classes.tolist(), found[0].source.tolist(), strict=True))
    assert all({places[channel] for channel in head.tolist()} == set(head.tolist()) for head in heads)


def test_layers_that_read_flattened_images_are_not_torn() -> None:
    """Of a channel's 16 pixels, four share a group: an order of the channels decides nothing."""
    model, _ = prepare(build("flatten_gemm"))
    found = find_orders(held(model, "2:4", 0.5), analyse_orders(model))
    assert all(order.layers for order in found)
    gemm = next(layer for layer in held(model, "2:4", 0.5) if layer.layer.node.op_type == "Gemm")
    assert gemm.ins is not None
    assert gemm.sides(np.unique(gemm.ins), np.arange(analyse_orders(model).channel_count)) == []


def test_channels_that_are_cut_keep_their_places() -> None:
    model = model_of(chain)
    orders, (_, analysis) = analyse_orders(model), prepare(model)
    group = next(g for g in analysis.groups if g.size == 24 and g.pinned is None)
    keep = np.ones(24, bool)
    keep[[1, 5, 6, 20]] = False
    alive = analysis.alive({group.id: keep})
    cut = slice_channels(model, analysis, alive)

    def kept(node: str, index: int, axis: int) -> np.ndarray | None:
        ids = analysis.use_axes[node, index][axis]
        return None if ids is None else alive[ids]

    own = next(g for g in orders.groups if g.size == 24)
    gone = own.channels[~keep].tolist()
    layers = held_layers(cut, sparse(cut, "2:4", 0.5), orders, {}, kept)
    found = find_orders(layers, orders, gone=gone)
    order = next(order for order in found if order.group == own.id)
    assert not set(gone) & set(order.classes.tolist()) and len(order.classes) == 20
    source = np.arange(orders.channel_count)
    source[order.classes] = order.source
    reordered = slice_channels(permute_channels(model, orders, source), analysis, alive)
    feeds = random_feeds(model, np.random.default_rng(0))
    assert relative_error(run_float64(cut, feeds), run_float64(reordered, feeds)) <= 1e-12


def tried(model: ir.Model, found: list[Found], name: str, level: float) -> Trial:
    analysis = prepare(model)[1]
    orders = analyse_orders(model)
    trial = Trial(held(model, name, level), found, orders.channel_count, shifts=True)
    whole = np.ones(analysis.channel_count, bool)
    data = Data(input_shape(model), fit=40, held=10)
    done = compensate(model, model, analysis, whole, data, Options(method="none"), None, trial)
    for value in done.model.graph.initializers.values():  # nothing is written
        old = model.graph.initializers[value.name or ""].const_value
        assert value.const_value is not None and old is not None
        assert np.array_equal(value.const_value.numpy(), old.numpy())
    return trial


@pytest.mark.parametrize(("name", "level"), PATTERNS)
def test_solving_tells_a_good_order_from_its_reverse(name: str, level: float) -> None:
    """The better order's error falls; asked the other way round, from that order to the old one, it rises."""
    model = model_of(feed_forward)
    orders = analyse_orders(model)
    found = find_orders(held(model, name, level), orders)
    group = max(found, key=lambda order: order.kept_after - order.kept_before)
    before, after = tried(model, [group], name, level).errors(group.group)
    assert 0 < after < before
    source = np.arange(orders.channel_count)
    source[group.classes] = group.source
    permuted = permute_channels(model, orders, source)
    back = source.copy()
    back[source] = np.arange(orders.channel_count)
    reverse = Found(group.group, group.classes, back[group.classes], group.layers, group.kept_after, group.kept_before)
    worse_before, worse_after = tried(permuted, [reverse], name, level).errors(group.group)
    assert worse_after > worse_before
    assert math.isclose(worse_after, before, rel_tol=0.2)


def test_a_trial_that_is_restored_knows_what_it_knew() -> None:
    model = model_of(feed_forward)
    found = find_orders(held(model, "2:4", 0.5), analyse_orders(model))
    first = tried(model, found, "2:4", 0.5)
    other = Trial(held(model, "2:4", 0.5), found, analyse_orders(model).channel_count, shifts=True)
    for layer in first.layers:
        result = first.result(layer)
        assert first.describe(layer) == other.describe(layer)
        if result is not None:
            other.restore(layer, result)
    assert all(first.errors(order.group) == other.errors(order.group) for order in found)
