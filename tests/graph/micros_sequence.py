"""Micro graphs on sequences: attention in the forms that exporters write, recurrent layers, einsum."""

from __future__ import annotations

import numpy as np

from tests.graph.builder import Builder
from tests.graph.micros import C, Micro

TOKENS = [2, 5, 12]
HEADS, WIDTH = 4, 6


def ints(b: Builder, *values: int) -> str:
    return b.const(np.array(values, np.int64))


def heads(b: Builder, x: str, count: int = HEADS) -> str:
    """[batch, length, heads · width] → [batch, heads, length, width]"""
    split = b.reshape(x, [0, 0, count, -1])
    return str(b.op("Transpose", [split], perm=[0, 2, 1, 3]))


def attend(b: Builder, q: str, k: str, v: str) -> str:
    scores = b.op("MatMul", [q, b.op("Transpose", [k], perm=[0, 1, 3, 2])])
    scores = b.op("Softmax", [b.op("Mul", [scores, b.const(np.float32(0.4))])], axis=-1)
    mixed = b.op("Transpose", [b.op("MatMul", [scores, v])], perm=[0, 2, 1, 3])
    return b.reshape(mixed, [0, 0, -1])


def attention(b: Builder) -> None:
    x = b.input("x", TOKENS)
    q, k, v = (heads(b, b.linear(x, HEADS * WIDTH)) for _ in range(3))
    b.output(b.linear(attend(b, q, k, v), 12))


def attention_bias(b: Builder) -> None:
    """A relative position bias [1, heads, length, length] is cut with the heads."""
    x = b.input("x", TOKENS)
    q, k, v = (heads(b, b.linear(x, HEADS * WIDTH)) for _ in range(3))
    scores = b.op("MatMul", [q, b.op("Transpose", [k], perm=[0, 1, 3, 2])])
    scores = b.op("Softmax", [b.op("Add", [scores, b.weight(1, HEADS, 5, 5)])], axis=-1)
    mixed = b.op("Transpose", [b.op("MatMul", [scores, v])], perm=[0, 2, 1, 3])
    b.output(b.linear(b.reshape(mixed, [0, 0, -1]), 12))


def cross_attention(b: Builder) -> None:
    x, memory = b.input("x", TOKENS), b.input("memory", [2, 7, 10])
    q = heads(b, b.linear(x, HEADS * WIDTH))
    k, v = (heads(b, b.linear(memory, HEADS * WIDTH)) for _ in range(2))
    b.output(b.linear(attend(b, q, k, v), 12))


def packed_qkv(b: Builder) -> None:
    """[N, T, 3·h·d] → [3, N, h, T, d] → three gathers, as vision transformers export it."""
    x = b.reshape(b.linear(b.input("x", TOKENS), 3 * HEADS * WIDTH), [2, 5, 3, HEADS, WIDTH])
    packed = b.op("Transpose", [x], perm=[2, 0, 3, 1, 4])
    q, k, v = (b.op("Gather", [packed, b.const(np.array(i, np.int64))], axis=0) for i in range(3))
    b.output(b.linear(attend(b, q, k, v), 12))


def packed_qkv_split(b: Builder) -> None:
    """The same split into parts of length 1 and squeezed."""
    x = b.reshape(b.linear(b.input("x", TOKENS), 3 * HEADS * WIDTH), [2, 5, 3, HEADS, WIDTH])
    packed = b.op("Transpose", [x], perm=[2, 0, 3, 1, 4])
    parts = b.op("Split", [packed], outputs=3, axis=0, num_outputs=3)
    q, k, v = (b.op("Squeeze", [part, ints(b, 0)]) for part in parts)
    b.output(b.linear(attend(b, q, k, v), 12))


def packed_thirds(b: Builder) -> None:
    """One projection cut into thirds before the heads are split."""
    parts = b.op("Split", [b.linear(b.input("x", TOKENS), 3 * HEADS * WIDTH)], outputs=3, axis=2, num_outputs=3)
    q, k, v = (heads(b, part) for part in parts)
    b.output(b.linear(attend(b, q, k, v), 12))


def grouped_query(b: Builder) -> None:
    """Two query heads share a key-value head, which is repeated by Expand."""
    x = b.input("x", TOKENS)
    q = heads(b, b.linear(x, HEADS * WIDTH))
    shared = []
    for _ in range(2):
        kv = b.op("Unsqueeze", [heads(b, b.linear(x, 2 * WIDTH), 2), ints(b, 2)])
        repeated = b.op("Expand", [kv, ints(b, 2, 2, 2, 5, WIDTH)])
        shared.append(b.reshape(repeated, [2, HEADS, 5, WIDTH]))
    b.output(b.linear(attend(b, q, *shared), 12))


def rotary(b: Builder, x: str) -> str:
    half = WIDTH // 2
    first = b.op("Slice", [x, ints(b, 0), ints(b, half), ints(b, 3)])
    second = b.op("Slice", [x, ints(b, half), ints(b, WIDTH), ints(b, 3)])
    turned = b.op("Concat", [b.op("Neg", [second]), first], axis=3)
    return str(b.op("Add", [b.op("Mul", [x, b.weight(5, WIDTH)]), b.op("Mul", [turned, b.weight(5, WIDTH)])]))


def rope(b: Builder) -> None:
    x = b.input("x", TOKENS)
    q, k, v = (heads(b, b.linear(x, HEADS * WIDTH, bias=False)) for _ in range(3))
    b.output(b.linear(attend(b, rotary(b, q), rotary(b, k), v), 12))


def windows(b: Builder) -> None:
    """Shifted windows: space is regrouped around the channels, heads are split inside the windows."""
    x = b.reshape(b.linear(b.input("x", [1, 4, 4, 12]), 3 * HEADS * WIDTH), [1, 2, 2, 2, 2, 3 * HEADS * WIDTH])
    x = b.reshape(b.op("Transpose", [x], perm=[0, 1, 3, 2, 4, 5]), [4, 4, 3, HEADS, WIDTH])
    packed = b.op("Transpose", [x], perm=[2, 0, 3, 1, 4])
    q, k, v = (b.op("Gather", [packed, b.const(np.array(i, np.int64))], axis=0) for i in range(3))
    b.output(b.linear(attend(b, q, k, v), 12))


def fused_attention(b: Builder) -> None:
    x = b.input("x", TOKENS)
    q, k, v = b.linear(x, HEADS * WIDTH), b.linear(x, 2 * WIDTH), b.linear(x, 2 * WIDTH)
    b.output(b.linear(b.op("Attention", [q, k, v], q_num_heads=HEADS, kv_num_heads=2), 12))


def fused_attention_heads(b: Builder) -> None:
    x = b.input("x", TOKENS)
    q, k, v = (heads(b, b.linear(x, HEADS * WIDTH)) for _ in range(3))
    mixed = b.op("Transpose", [b.op("Attention", [q, k, v])], perm=[0, 2, 1, 3])
    b.output(b.linear(b.reshape(mixed, [0, 0, -1]), 12))


def einsum_conv(b: Builder) -> None:
    x = b.relu(b.conv(b.input("x", [1, 3, 8, 8]), C))
    y = b.relu(b.op("Einsum", [x, b.weight(10, C)], equation="bchw,oc->bohw"))
    b.output(b.conv(y, 8))


def einsum_attention(b: Builder) -> None:
    """Per-head projections as three-axis weights, scores and mixing as einsum."""
    x = b.input("x", TOKENS)
    q, k, v = (b.op("Einsum", [x, b.weight(HEADS, 12, WIDTH)], equation="btc,hcd->bhtd") for _ in range(3))
    scores = b.op("Softmax", [b.op("Einsum", [q, k], equation="bhtd,bhsd->bhts")], axis=-1)
    mixed = b.op("Einsum", [scores, v], equation="bhts,bhsd->bthd")
    b.output(b.op("Einsum", [mixed, b.weight(HEADS, WIDTH, 9)], equation="bthd,hdo->bto"))


def recurrent(b: Builder, op: str, gates: int, directions: int, **attributes: object) -> str:
    """[time, batch, 12] → [time, batch, directions · C]; the initial state is a constant."""
    x = b.linear(b.input("x", [5, 2, 6]), 12)
    direction = "bidirectional" if directions == 2 else "forward"
    weights = [
        b.weight(directions, gates * C, 12),
        b.weight(directions, gates * C, C),
        b.weight(directions, 2 * gates * C),
    ]
    inputs = [x, *weights, "", b.weight(directions, 2, C)]
    if op == "LSTM":
        inputs += [b.weight(directions, 2, C), b.weight(directions, 3 * C)]
    y = b.op(op, inputs, outputs=2, hidden_size=C, direction=direction, **attributes)[0]
    return b.reshape(b.op("Transpose", [y], perm=[0, 2, 1, 3]), [5, 2, -1])


def lstm(b: Builder) -> None:
    b.output(b.linear(recurrent(b, "LSTM", 4, 1), 4))


def lstm_both(b: Builder) -> None:
    b.output(b.linear(recurrent(b, "LSTM", 4, 2), 4))


def gru(b: Builder) -> None:
    b.output(b.linear(recurrent(b, "GRU", 3, 1, linear_before_reset=1), 4))


def gru_both(b: Builder) -> None:
    b.output(b.linear(recurrent(b, "GRU", 3, 2), 4))


def rnn_both(b: Builder) -> None:
    b.output(b.linear(recurrent(b, "RNN", 1, 2), 4))


def lstm_stacked(b: Builder) -> None:
    """Two layers; the last state of the second is an output of its own."""
    y = recurrent(b, "LSTM", 4, 2)
    weights = [b.weight(1, 4 * C, 2 * C), b.weight(1, 4 * C, C), b.weight(1, 8 * C)]
    _, last = b.op("LSTM", [y, *weights], outputs=2, hidden_size=C)
    b.output(b.linear(last, 4))


SEQUENCES: dict[str, Micro] = {
    "attention": Micro(attention, [4]),
    "attention_bias": Micro(attention_bias, [4]),
    "cross_attention": Micro(cross_attention, [4]),
    "packed_qkv": Micro(packed_qkv, [4]),
    "packed_qkv_split": Micro(packed_qkv_split, [4]),
    "packed_thirds": Micro(packed_thirds, [4]),
    "grouped_query": Micro(grouped_query, [2]),
    "rope": Micro(rope, [4]),
    "windows": Micro(windows, [4]),
    "fused_attention": Micro(fused_attention, [2], opset=23),
    "fused_attention_heads": Micro(fused_attention_heads, [4], opset=23),
    "einsum_conv": Micro(einsum_conv, [16, 10]),
    "einsum_attention": Micro(einsum_attention, [4, 6, 6]),
    "lstm": Micro(lstm, [12, 16]),
    "lstm_both": Micro(lstm_both, [12, 16]),
    "gru": Micro(gru, [12, 16]),
    "gru_both": Micro(gru_both, [12, 16]),
    "rnn_both": Micro(rnn_both, [12, 16]),
    "lstm_stacked": Micro(lstm_stacked, [12, 16, 16]),
}
