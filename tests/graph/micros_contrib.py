"""Micro graphs of ONNX Runtime's own operators, as its transformer optimizer writes them."""

from __future__ import annotations

import numpy as np

from tests.graph.builder import Builder
from tests.graph.micros import C, Micro

TOKENS = [2, 5, 12]
HEADS, WIDTH = 4, 6
HIDDEN = HEADS * WIDTH


def packed_attention(b: Builder) -> None:
    x = b.linear(b.input("x", TOKENS), C)
    y = b.contrib("Attention", [x, b.weight(C, 3 * HIDDEN), b.weight(3 * HIDDEN)], num_heads=HEADS)
    b.output(b.linear(y, 12))


def packed_attention_sizes(b: Builder) -> None:
    """Values narrower than queries, a mask of lengths, and a bias per head."""
    sizes = [HIDDEN, HIDDEN, 8]
    inputs = [b.input("x", TOKENS), b.weight(12, sum(sizes)), b.weight(sum(sizes))]
    inputs += ["", "", b.weight(1, HEADS, 5, 5)]
    y = b.contrib("Attention", inputs, num_heads=HEADS, qkv_hidden_sizes=sizes, scale=0.3)
    b.output(b.linear(y, 12))


def multi_head(b: Builder) -> None:
    """One bias vector for query, key and value; the values are narrower."""
    x, memory = b.input("x", TOKENS), b.input("memory", [2, 7, 10])
    q, k, v = (b.linear(s, n, bias=False) for s, n in ((x, HIDDEN), (memory, HIDDEN), (memory, 8)))
    y = b.contrib("MultiHeadAttention", [q, k, v, b.weight(2 * HIDDEN + 8)], num_heads=HEADS)
    b.output(b.linear(y, 12))


def multi_head_bias(b: Builder) -> None:
    """What is added to the scores has a heads axis, made by a layer of its own."""
    x = b.input("x", TOKENS)
    q, k, v = (b.linear(x, HIDDEN, bias=False) for _ in range(3))
    grid = b.op("Transpose", [b.linear(b.input("table", [2, 5, 5, 3]), HEADS)], perm=[0, 3, 1, 2])
    y = b.contrib("MultiHeadAttention", [q, k, v, "", "", grid], num_heads=HEADS)
    b.output(b.linear(y, 12))


def multi_head_cache(b: Builder) -> None:
    """A cache is an interface with a heads axis: the heads stay, with the reason; the hidden layer is free."""
    x = b.input("x", TOKENS)
    q, k, v = (b.linear(x, HIDDEN, bias=False) for _ in range(3))
    past = [b.input(name, [2, HEADS, 3, WIDTH]) for name in ("past_key", "past_value")]
    y, *_ = b.contrib("MultiHeadAttention", [q, k, v, "", "", "", *past], outputs=3, num_heads=HEADS)
    b.output(b.linear(b.contrib("QuickGelu", [b.linear(y, C)]), 12))


def skip_norms(b: Builder) -> None:
    """Both skip norms in a row: the stream is class C, the hidden layer is free."""
    x = b.input("x", TOKENS)
    stream = b.linear(x, C)
    y = b.contrib("SkipLayerNormalization", [stream, b.linear(x, C), *(b.weight(C) for _ in range(3))], outputs=4)
    hidden = b.contrib("BiasGelu", [b.linear(y[0], 24, bias=False), b.weight(24)])
    inputs = [b.linear(hidden, C), y[3], b.weight(C)]
    b.output(b.linear(b.contrib("SkipSimplifiedLayerNormalization", inputs), 12))


def embed_norm(b: Builder) -> None:
    tokens, segments = (b.input(name, [2, 5], dtype=6) for name in ("tokens", "segments"))
    tables = [b.weight(n, C) for n in (50, 8, 2)]
    outputs = b.contrib("EmbedLayerNormalization", [tokens, segments, *tables, b.weight(C), b.weight(C)], outputs=2)
    b.output(b.linear(b.contrib("FastGelu", [b.linear(outputs[0], 24), b.weight(24)]), 12))


def fused_conv(b: Builder) -> None:
    """Convolution, residual and activation in one node."""
    x = b.relu(b.conv(b.input("x", [1, 3, 8, 8]), C))
    weight = b.weight(C, C, 3, 3)
    y = b.contrib("FusedConv", [x, weight, b.weight(C), x], activation="Relu", pads=[1] * 4)
    y = b.contrib("FusedConv", [y, b.weight(10, C, 1, 1)], activation="Sigmoid")
    b.output(b.conv(y, 8))


def fused_matmul(b: Builder) -> None:
    x = b.op("Transpose", [b.linear(b.input("x", TOKENS), C)], perm=[0, 2, 1])
    y = b.contrib("FusedMatMul", [x, b.weight(10, C)], transA=1, transB=1, alpha=0.5)
    scores = b.contrib("FusedMatMul", [y, y], transB=1, alpha=0.3)
    b.output(b.linear(b.op("MatMul", [b.op("Softmax", [scores]), y]), 6))


def fused_gemm(b: Builder) -> None:
    x = b.gemm(b.input("x", [2, 6]), C)
    y = b.contrib("FusedGemm", [x, b.weight(10, C), b.weight(10)], transB=1, activation="Relu")
    b.output(b.gemm(y, 4))


def grouped_query_fused(b: Builder) -> None:
    x = b.input("x", TOKENS)
    q, k, v = (b.linear(x, n * 8, bias=False) for n in (HEADS, 2, 2))
    lengths, total = b.const(np.array([4, 4], np.int32)), b.const(np.array(5, np.int32))
    y, _, _ = b.contrib(
        "GroupQueryAttention", [q, k, v, "", "", lengths, total], outputs=3, num_heads=HEADS, kv_num_heads=2
    )
    b.output(b.linear(y, 12))


CONTRIBS: dict[str, Micro] = {
    "packed_attention": Micro(packed_attention, [16, 4]),
    "packed_attention_sizes": Micro(packed_attention_sizes, [4]),
    "multi_head": Micro(multi_head, [4]),
    "multi_head_bias": Micro(multi_head_bias, [4]),
    "multi_head_cache": Micro(multi_head_cache, [16], frozenset({"PC101", "PC102"})),
    "skip_norms": Micro(skip_norms, [24], frozenset({"PC102", "PC105"})),
    "embed_norm": Micro(embed_norm, [24], frozenset({"PC102", "PC105"})),
    "fused_conv": Micro(fused_conv, [16, 10]),
    "fused_matmul": Micro(fused_matmul, [16, 10]),
    "fused_gemm": Micro(fused_gemm, [16, 10]),
    "grouped_query_fused": Micro(grouped_query_fused, [2]),
}
