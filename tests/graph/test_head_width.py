"""Widths of heads (`split="inner"`): groups, numbers, pairs of rotary positions, and the scale of the scores."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from prunec.graph import Analysis
from prunec.graph.head_width import analyse_widths
from prunec.passes.canonicalise import canonicalise
from prunec.passes.mask_channels import mask_channels
from prunec.passes.slice_channels import slice_channels
from tests.graph.builder import Builder
from tests.graph.checks import assert_exact, free_sizes, random_alive, random_feeds, relative_error, run_float64
from tests.graph.fuzz_sequence import SequenceGrower
from tests.graph.micros_contrib import CONTRIBS
from tests.graph.micros_sequence import HEADS, SEQUENCES, TOKENS, WIDTH, heads

WIDTHS: dict[str, list[int]] = {
    "attention": [WIDTH, WIDTH],
    "cross_attention": [WIDTH, WIDTH],
    "packed_qkv": [WIDTH],
    "packed_thirds": [2 * WIDTH],
    "grouped_query": [WIDTH, WIDTH],
    "rope": [WIDTH // 2, WIDTH],
    "fused_attention": [WIDTH, WIDTH],
    "fused_attention_heads": [WIDTH, WIDTH],
}
"""Free groups per micro graph: query and key together, and value; a packed projection is one group of both, and where
its thirds are an axis of the same split, they go together."""


def build(name: str) -> ir.Model:
    builder = Builder(seed=sorted(SEQUENCES).index(name), opset=SEQUENCES[name].opset)
    SEQUENCES[name].build(builder)
    return canonicalise(builder.model())


@pytest.mark.parametrize("name", WIDTHS)
def test_groups(name: str) -> None:
    assert free_sizes(analyse_widths(build(name))) == WIDTHS[name]


@pytest.mark.parametrize("name", WIDTHS)
def test_numbers(name: str) -> None:
    model = build(name)
    analysis = analyse_widths(model)
    assert_exact(model, analysis, seed=3)
    rng = np.random.default_rng(4)
    alive = random_alive(analysis, 0.5, rng)
    feeds = random_feeds(model, rng)
    masked = run_float64(mask_channels(model, analysis, alive), feeds)
    assert relative_error(masked, run_float64(slice_channels(model, analysis, alive), feeds)) <= 1e-12


def scaled(read_from_shape: bool) -> tuple[ir.Model, Analysis]:
    """Scores divided by √d, with d written down or read off the query at run time."""
    b = Builder(seed=1)
    x = b.input("x", TOKENS)
    q, k, v = (heads(b, b.linear(x, HEADS * WIDTH)) for _ in range(3))
    if read_from_shape:
        width = b.op("Gather", [b.op("Shape", [q]), b.const(np.array(3))])
        root = b.op("Sqrt", [b.op("Cast", [width], to=1)])
    else:
        root = b.const(np.float32(WIDTH**0.5))
    scores = b.op("MatMul", [q, b.op("Transpose", [k], perm=[0, 1, 3, 2])])
    weights = b.op("Softmax", [b.op("Div", [scores, root])], axis=-1)
    mixed = b.op("Transpose", [b.op("MatMul", [weights, v])], perm=[0, 2, 1, 3])
    b.output(b.linear(b.reshape(mixed, [0, 0, -1]), 12))
    model = canonicalise(b.model())
    return model, analyse_widths(model)


@pytest.mark.parametrize("read_from_shape", [False, True])
def test_the_scale_stays_that_of_the_dense_width(read_from_shape: bool) -> None:
    model, analysis = scaled(read_from_shape)
    assert free_sizes(analysis) == [WIDTH, WIDTH]
    cut = assert_exact(model, analysis, seed=5)
    divisors = [node.inputs[1] for node in cut.graph if node.op_type == "Div"]
    assert [float(v.const_value.numpy()) for v in divisors if v is not None and v.const_value is not None] == [
        pytest.approx(WIDTH**0.5)
    ]


def test_other_channels_are_not_listed() -> None:
    b = Builder(seed=1)
    b.output(b.linear(b.relu(b.linear(b.input("x", TOKENS), 16)), 4))
    assert analyse_widths(canonicalise(b.model())).groups == ()


def test_random_graphs() -> None:
    cut = 0
    for seed in range(40):
        rng = np.random.default_rng([seed, 5])
        model = canonicalise(SequenceGrower(seed).grow(int(rng.integers(4, 12))))
        analysis = analyse_widths(model)
        cut += len(free_sizes(analysis))
        assert_exact(model, analysis, seed, share=float(rng.choice([0.25, 0.5, 0.9])))
    assert cut > 10


def runtime(name: str) -> tuple[ir.Model, Analysis]:
    builder = Builder(seed=5)
    CONTRIBS[name].build(builder)
    model = canonicalise(builder.model())
    return model, analyse_widths(model)


def test_fused_heads_keep_the_scale_of_their_whole_width() -> None:
    """Queries and keys together, values by themselves; the mask of each head stays as it is."""
    model, analysis = runtime("multi_head_bias")
    assert free_sizes(analysis) == [WIDTH, WIDTH]
    for seed in range(3):
        cut = assert_exact(model, analysis, seed=seed)
        (node,) = [node for node in cut.graph if node.op_type == "MultiHeadAttention"]
        assert node.attributes.get_float("scale") == pytest.approx(WIDTH**-0.5)
        assert node.attributes.get_int("num_heads") == HEADS


def test_a_bias_inside_the_node_pins_the_width_of_queries_and_keys() -> None:
    model, analysis = runtime("multi_head")
    assert free_sizes(analysis) == [2]
    assert {g.pinned.code for g in analysis.groups if g.pinned is not None} == {"PC105"}
    assert_exact(model, analysis, seed=0)


def test_grouped_query_attention_has_one_width() -> None:
    _, analysis = runtime("grouped_query_fused")
    reasons = [g.pinned.reason for g in analysis.groups if g.pinned is not None]
    assert not free_sizes(analysis) and any("one width" in reason for reason in reasons)
