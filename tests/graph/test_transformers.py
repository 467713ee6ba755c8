"""Every transformer prunes heads and hidden layers, whichever exporter wrote it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.graph_files import read_graph
from benchmarks.transformer_blocks import attentions, feed_forwards
from tests.graph.builder import Builder
from tests.graph.checks import prepare
from tests.graph.micros_contrib import CONTRIBS
from tests.graph.micros_sequence import SEQUENCES, TOKENS, attend, heads

GRAPHS = Path(__file__).parents[3] / "shared" / "graphs"

# (attentions, hidden layers), counted in the architectures: albert shares one block over its three layers, the poolers
# of bert, distilbert and albert are hidden layers too, and so is the 1×1 convolution before mobilevit's classifier.
EXPECTED = {
    "hf_albert": (3, 2),
    "hf_bert": (3, 4),
    "hf_distilbert": (3, 4),
    "hf_gpt2": (3, 3),
    "hf_llama_gqa": (3, 3),
    "hf_opt": (2, 2),
    "hf_qwen2": (2, 2),
    "hf_swin": (4, 4),
    "hf_vit": (3, 3),
    "hf_wav2vec2": (2, 2),
    "timm_deit_tiny_patch16_224": (12, 12),
    "timm_mobilevit_xxs": (9, 10),
    "timm_visformer_tiny": (8, 8),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name.startswith("timm_") else name for name in EXPECTED]
)
def test_real_transformers(name: str) -> None:
    path = GRAPHS / f"{name}.onnx.gz"
    if not path.is_file():
        pytest.skip(f"the collection of graphs is not beside this checkout: {path.name}")
    canonical, analysis = prepare(read_graph(path))
    found = attentions(canonical, analysis)
    assert all(attention.heads for attention in found), [a.node for a in found if not a.heads]
    assert (len(found), len(feed_forwards(canonical, analysis))) == EXPECTED[name]


FUSED = ("packed_attention", "multi_head", "multi_head_bias", "grouped_query_fused")


@pytest.mark.parametrize(
    "name", ["attention", "packed_qkv", "grouped_query", "rope", "windows", "einsum_attention", *FUSED]
)
def test_spellings_of_attention(name: str) -> None:
    micro = (SEQUENCES | CONTRIBS)[name]
    builder = Builder(seed=0, opset=micro.opset)
    micro.build(builder)
    (found,) = attentions(*prepare(builder.model()))
    assert len(found.heads) == 1


def test_heads_that_are_pinned_are_not_counted() -> None:
    """The scores are an output, so the heads stay; the hidden layer behind them is found."""
    b = Builder(seed=0)
    x = b.input("x", TOKENS)
    q, k, v = (heads(b, b.linear(x, 24)) for _ in range(3))
    y = attend(b, q, k, v)
    b.output(b.linear(b.relu(b.linear(y, 32)), 12))
    b.output(next(node.output[0] for node in b.nodes if node.op_type == "Softmax"))
    canonical, analysis = prepare(b.model())
    (found,) = attentions(canonical, analysis)
    assert found.heads == ()
    assert [group.size for group in feed_forwards(canonical, analysis)] == [32]


def test_a_softmax_that_mixes_nothing_is_no_attention() -> None:
    b = Builder(seed=0)
    b.output(b.op("Softmax", [b.linear(b.input("x", TOKENS), 4)]))
    canonical, analysis = prepare(b.model())
    assert attentions(canonical, analysis) == ()
