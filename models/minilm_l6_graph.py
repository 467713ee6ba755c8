"""The graph of minilm-l6: BERT with post-norm, attention written out; parameter names are the checkpoint's.

A = softmax(Q Kᵀ/√d − 10⁴ (1 − mask)),  x ← LN(x + A V W_o),  x ← LN(x + W₂ gelu(W₁ x))
embedding = mean over tokens of x, divided by its length
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from prunec.models.onnx_builder import GraphBuilder

LAYERS, HEADS, WIDTH = 6, 12, 384
HEAD_WIDTH = WIDTH // HEADS
EPSILON = 1e-12


def build_model(weights: Mapping[str, npt.NDArray[Any]]) -> ModelProto:
    g = GraphBuilder("minilm_l6", weights)
    ids = g.input("input_ids", np.int64, ["batch", "tokens"])
    mask = g.input("attention_mask", np.int64, ["batch", "tokens"])
    mask = g.node("Cast", [mask], "mask.cast", to=1)
    bias = _mask_bias(g, mask)
    x = _embeddings(g, ids)
    for number in range(LAYERS):
        x = _layer(g, x, bias, f"encoder.layer.{number}")
    g.output(_pooled(g, x, mask), np.float32, ["batch", WIDTH])
    return g.model()


def _embeddings(g: GraphBuilder, ids: str) -> str:
    words = g.node("Gather", [g.weight("embeddings.word_embeddings.weight"), ids], "embeddings.word")
    zero = g.constant("token_type", 0)
    kind = g.node("Gather", [g.weight("embeddings.token_type_embeddings.weight"), zero], "embeddings.token_type")
    shape = g.node("Shape", [ids], "embeddings.shape")
    tokens = g.node("Slice", [shape, g.constant("one", [1]), g.constant("two", [2])], "embeddings.tokens")
    table = g.weight("embeddings.position_embeddings.weight")
    place = g.node("Slice", [table, g.constant("start", [0]), tokens, g.constant("rows", [0])], "embeddings.position")
    total = g.node("Add", [g.node("Add", [words, kind], "embeddings.add_type"), place], "embeddings.add_position")
    return _layer_norm(g, total, "embeddings.LayerNorm")


def _mask_bias(g: GraphBuilder, mask: str) -> str:
    """[b, s] of 1 and 0 → [b, 1, 1, s] of 0 and −10⁴."""
    spread = g.node("Unsqueeze", [mask, g.constant("heads_and_queries", [1, 2])], "mask.spread")
    absent = g.node("Sub", [g.constant("float_one", 1, np.float32), spread], "mask.absent")
    return g.node("Mul", [absent, g.constant("minus_ten_thousand", -10_000, np.float32)], "mask.bias")


def _layer(g: GraphBuilder, x: str, bias: str, name: str) -> str:
    attended = g.linear(_attention(g, x, bias, f"{name}.attention"), f"{name}.attention.output.dense")
    x = g.node("Add", [attended, x], f"{name}.attention.residual")
    x = _layer_norm(g, x, f"{name}.attention.output.LayerNorm")
    hidden = _gelu(g, g.linear(x, f"{name}.intermediate.dense"), f"{name}.intermediate.gelu")
    x = g.node("Add", [g.linear(hidden, f"{name}.output.dense"), x], f"{name}.residual")
    return _layer_norm(g, x, f"{name}.output.LayerNorm")


def _attention(g: GraphBuilder, x: str, bias: str, name: str) -> str:
    query = _heads(g, g.linear(x, f"{name}.self.query"), f"{name}.query", [0, 2, 1, 3])
    key = _heads(g, g.linear(x, f"{name}.self.key"), f"{name}.key", [0, 2, 3, 1])
    value = _heads(g, g.linear(x, f"{name}.self.value"), f"{name}.value", [0, 2, 1, 3])
    scores = g.node("MatMul", [query, key], f"{name}.scores")
    scores = g.node("Div", [scores, g.constant("root_of_width", HEAD_WIDTH**0.5, np.float32)], f"{name}.scaled")
    weights = g.node("Softmax", [g.node("Add", [scores, bias], f"{name}.masked")], f"{name}.softmax", axis=-1)
    mixed = g.node("MatMul", [weights, value], f"{name}.context")
    mixed = g.node("Transpose", [mixed], f"{name}.context.transpose", perm=[0, 2, 1, 3])
    return g.node("Reshape", [mixed, g.constant("joined", [0, 0, WIDTH])], f"{name}.context.join")


def _heads(g: GraphBuilder, x: str, name: str, perm: list[int]) -> str:
    split = g.node("Reshape", [x, g.constant("split", [0, 0, HEADS, HEAD_WIDTH])], f"{name}.split")
    return g.node("Transpose", [split], f"{name}.transpose", perm=perm)


def _gelu(g: GraphBuilder, x: str, name: str) -> str:
    """x/2 · (1 + erf(x/√2))."""
    erf = g.node(
        "Erf", [g.node("Div", [x, g.constant("root_of_two", 2**0.5, np.float32)], f"{name}.div")], f"{name}.erf"
    )
    gate = g.node("Add", [erf, g.constant("float_one", 1, np.float32)], f"{name}.add")
    return g.node("Mul", [g.node("Mul", [x, gate], f"{name}.mul"), g.constant("half", 0.5, np.float32)], f"{name}.half")


def _layer_norm(g: GraphBuilder, x: str, name: str) -> str:
    scale, bias = g.weight(f"{name}.weight"), g.weight(f"{name}.bias")
    return g.node("LayerNormalization", [x, scale, bias], name, axis=-1, epsilon=EPSILON)


def _pooled(g: GraphBuilder, x: str, mask: str) -> str:
    tokens = g.constant("token_axis", [1])
    spread = g.node("Unsqueeze", [mask, g.constant("last_axis", [-1])], "pooling.mask")
    total = g.node("ReduceSum", [g.node("Mul", [x, spread], "pooling.masked"), tokens], "pooling.sum", keepdims=0)
    count = g.node("ReduceSum", [spread, tokens], "pooling.count", keepdims=0)
    mean = g.node("Div", [total, count], "pooling.mean")
    length = g.node("ReduceL2", [mean], "pooling.length", axes=[1], keepdims=1)
    return g.node("Div", [mean, length], "normalise", output="embedding")
