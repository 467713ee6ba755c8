"""Blocks that can be removed whole: what is found, that the reference proves it, and random graphs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from prunec.graph.branches import find_blocks, live_nodes
from prunec.graph.cost import model_macs, node_macs, parameter_count
from prunec.passes.canonicalise import canonicalise
from prunec.passes.remove_blocks import drop_identities, gate_blocks, mask_blocks, remove_blocks
from tests.graph.builder import Builder
from tests.graph.checks import random_feeds, relative_error, run, run_float64
from tests.graph.micros import C
from tests.graph.micros_residual import RESIDUALS, attention, layer_norm


def transformer(name: str) -> ir.Model:
    builder = Builder(seed=7, opset=RESIDUALS[name].opset)
    RESIDUALS[name].build(builder)
    return canonicalise(builder.model())


def image() -> ir.Model:
    """A plain block, one whose shortcut is a convolution (none), a U-shaped one around another, and no block at all."""
    b = Builder(seed=1)
    x = b.relu(b.conv(b.input("x", [1, 3, 8, 8]), C))
    x = b.relu(b.op("Add", [x, b.batch_norm(b.conv(b.relu(b.conv(x, C)), C))]))
    x = b.relu(b.op("Add", [b.conv(x, 8, k=1), b.conv(x, 8)]))
    down = b.relu(b.conv(x, 8, stride=2))
    down = b.op("Add", [b.conv(down, 8), down])
    x = b.op("Add", [b.conv_transpose(down, 8), x])
    x = b.op("Add", [x, b.relu(x)])  # nothing to be saved
    b.output(b.conv(b.op("Add", [x, b.weight(1, 8, 1, 1)]), 4))
    return canonicalise(b.model())


def test_residual_blocks_of_an_image_network() -> None:
    model = image()
    found = find_blocks(model)
    adds = [node.name for node in model.graph if node.op_type == "Add"]
    assert [block.name for block in found] == [adds[0], adds[2], adds[3]]
    assert {block.kind for block in found} == {"branch"}
    inner, outer = found[1], found[2]
    assert len(live_nodes(model, [outer])) < len(live_nodes(model, [inner]))
    assert live_nodes(model, [outer, inner]) == live_nodes(model, [outer]), "the inner block is inside the outer one"


@pytest.mark.parametrize(("name", "branches", "layers"), [("post_norm", 4, 2), ("pre_norm", 4, 0)])
def test_blocks_of_a_transformer(name: str, branches: int, layers: int) -> None:
    found = find_blocks(transformer(name))
    kinds = [block.kind for block in found]
    assert (kinds.count("branch"), kinds.count("layer")) == (branches, layers)
    assert len({block.name for block in found}) == len(found)


def test_a_layer_takes_its_norms_along() -> None:
    model = transformer("post_norm")
    layer = next(block for block in find_blocks(model) if block.kind == "layer")
    removed = remove_blocks(model, [layer])
    drop_identities(removed)
    norms = [sum(node.op_type == "LayerNormalization" for node in m.graph) for m in (model, removed)]
    assert norms == [5, 3]


@pytest.mark.parametrize("name", ["post_norm", "pre_norm", "root_mean_square"])
def test_every_block_alone_and_all_together(name: str) -> None:
    model = transformer(name)
    blocks = find_blocks(model)
    feeds = random_feeds(model, np.random.default_rng(0))
    dense = run(model, feeds)
    for chosen in [*([block] for block in blocks), blocks]:
        removed = remove_blocks(model, chosen)
        masked = mask_blocks(model, chosen)
        assert relative_error(run_float64(masked, feeds), run_float64(removed, feeds)) <= 1e-12
        found = run(removed, feeds)
        assert relative_error(run(masked, feeds), found) <= 1e-5
        assert relative_error(dense, found) > 1e-3, "removing a block must show"
        drop_identities(removed)
        assert relative_error(run(removed, feeds), found) <= 1e-6
        assert {node.name for node in removed.graph} <= {node.name for node in live_nodes(model, chosen)}
        assert model_macs(removed) == sum(node_macs(node) for node in live_nodes(model, chosen))
        assert parameter_count(removed) < parameter_count(model)


def test_gates_ask_about_any_set() -> None:
    model = transformer("pre_norm")
    blocks = find_blocks(model)
    gated, names = gate_blocks(model, blocks)
    feeds = random_feeds(model, np.random.default_rng(0))
    for chosen in ([], blocks[:1], blocks[1:3], blocks):
        gates = {name: np.array(block not in chosen) for name, block in zip(names, blocks, strict=True)}
        assert relative_error(run(remove_blocks(model, chosen), feeds), run(gated, {**feeds, **gates})) <= 1e-6


def test_a_block_whose_output_is_the_models() -> None:
    b = Builder(seed=2)
    x = b.linear(b.input("x", [2, 5, 7]), C)
    b.output(b.op("Add", [x, b.linear(b.relu(b.linear(x, 24)), C)]))
    model = canonicalise(b.model())
    (block,) = find_blocks(model)
    removed = remove_blocks(model, [block])
    drop_identities(removed)
    assert [v.name for v in removed.graph.outputs] == [v.name for v in model.graph.outputs]
    feeds = random_feeds(model, np.random.default_rng(0))
    assert relative_error(run(mask_blocks(model, [block]), feeds), run(removed, feeds)) <= 1e-6


def grown(seed: int) -> ir.Model:
    """A random tree of residual blocks, with and without norms around them, some read again later."""
    rng = np.random.default_rng([seed, 3])
    b = Builder(seed)
    x = b.linear(b.input("x", [2, 5, 7]), C)
    pool = [x]

    def block(x: str, depth: int) -> str:
        y = layer_norm(b, x) if rng.random() < 0.4 else x
        for _ in range(int(rng.integers(1, 3))):
            wide = b.linear(y, int(rng.choice([8, C, 24])))
            y = b.linear(b.relu(wide), C)
            if depth and rng.random() < 0.5:
                y = block(y, depth - 1)
        y = attention(b, y) if rng.random() < 0.3 else y
        total = b.op("Add", [x, y] if rng.random() < 0.5 else [y, x])
        return layer_norm(b, total) if rng.random() < 0.5 else str(total)

    for _ in range(int(rng.integers(2, 6))):
        x = block(x, 2)
        if rng.random() < 0.3:
            x = str(b.op("Add", [x, str(rng.choice(pool))]))  # a longer way round
        pool.append(x)
    b.output(b.linear(x, 3))
    return canonicalise(b.model())


@pytest.mark.parametrize("first", [0, pytest.param(20, marks=pytest.mark.slow)])
def test_random_graphs(first: int) -> None:
    removed_blocks = 0
    for seed in range(first, first + 20):
        rng = np.random.default_rng([seed, 4])
        model = grown(seed)
        chosen = [block for block in find_blocks(model) if rng.random() < 0.5]
        rng.shuffle(chosen)  # type: ignore[arg-type]
        removed_blocks += len(chosen)
        feeds = random_feeds(model, rng)
        removed = remove_blocks(model, chosen)
        assert relative_error(run(mask_blocks(model, chosen), feeds), run(removed, feeds)) <= 1e-5, f"seed {seed}"
        assert {n.name for n in removed.graph if n.op_type != "Identity"} <= {
            n.name for n in live_nodes(model, chosen)
        }, f"seed {seed}"
    assert removed_blocks > 20
