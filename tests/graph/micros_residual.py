"""Micro graphs whose residual stream runs through a norm over its channels (class C when asked for)."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.graph.builder import Builder
from tests.graph.micros import C, Micro
from tests.graph.micros_sequence import attend, heads

TOKENS = [2, 5]
HEADS = 4


def scalar(b: Builder, number: float) -> str:
    return b.const(np.float32(number))


def layer_norm(b: Builder, x: str) -> str:
    n = b.shapes[x][-1]
    return str(b.op("LayerNormalization", [x, b.weight(n), b.weight(n)], epsilon=1e-5))


def layer_norm_by_hand(b: Builder, x: str) -> str:
    """As exporters write it before opset 17."""
    n = b.shapes[x][-1]
    centred = b.op("Sub", [x, b.op("ReduceMean", [x, b.const(np.array([-1]))])])
    variance = b.op("ReduceMean", [b.op("Pow", [centred, scalar(b, 2)]), b.const(np.array([-1]))])
    deviation = b.op("Sqrt", [b.op("Add", [variance, scalar(b, 1e-5)])])
    return str(b.op("Add", [b.op("Mul", [b.op("Div", [centred, deviation]), b.weight(n)]), b.weight(n)]))


def rms_norm_by_hand(b: Builder, x: str) -> str:
    n = b.shapes[x][-1]
    mean = b.op("ReduceMean", [b.op("Mul", [x, x]), b.const(np.array([-1]))])
    factor = b.op("Reciprocal", [b.op("Sqrt", [b.op("Add", [mean, scalar(b, 1e-6)])])])
    return str(b.op("Mul", [b.op("Mul", [x, factor]), b.weight(n)]))


def embed(b: Builder) -> tuple[str, str]:
    """Words and positions, added; also the table of the words."""
    table = b.weight(80, C)  # large enough to stay tied
    words = b.op("Gather", [table, b.input("ids", TOKENS, TensorProto.INT64)])
    return str(b.op("Add", [words, b.weight(1, TOKENS[1], C)])), table


def attention(b: Builder, x: str) -> str:
    q, k, v = (heads(b, b.linear(x, HEADS * 6), HEADS) for _ in range(3))
    return b.linear(attend(b, q, k, v), C)


def feed_forward(b: Builder, x: str) -> str:
    return b.linear(b.op("Gelu", [b.linear(x, 24)]) if b.opset >= 20 else b.relu(b.linear(x, 24)), C)


def post_norm(b: Builder) -> None:
    x, _ = embed(b)
    x = layer_norm(b, x)
    for _ in range(2):
        x = layer_norm(b, b.op("Add", [attention(b, x), x]))
        x = layer_norm(b, b.op("Add", [feed_forward(b, x), x]))
    b.output(b.linear(x, 5))


def pre_norm(b: Builder) -> None:
    """Written out, with the head tied to the embedding."""
    x, table = embed(b)
    for _ in range(2):
        x = b.op("Add", [x, attention(b, layer_norm_by_hand(b, x))])
        x = b.op("Add", [x, feed_forward(b, layer_norm_by_hand(b, x))])
    b.output(b.op("MatMul", [layer_norm_by_hand(b, x), b.op("Transpose", [table], perm=[1, 0])]))


def root_mean_square(b: Builder) -> None:
    x, _ = embed(b)
    for _ in range(2):
        x = b.op("Add", [x, attention(b, rms_norm_by_hand(b, x))])
    b.output(b.linear(rms_norm_by_hand(b, x), 5))


def root_mean_square_node(b: Builder) -> None:
    x, _ = embed(b)
    x = b.op("Add", [x, feed_forward(b, b.op("RMSNormalization", [x, b.weight(C)], epsilon=1e-6))])
    b.output(b.linear(b.op("RMSNormalization", [x, b.weight(C)]), 5))


def positions_to_a_run_time_length(b: Builder) -> None:
    """The rows of the position table are sliced to a length that another input gives."""
    words = b.op("Gather", [b.weight(80, C), b.input("ids", TOKENS, TensorProto.INT64)])
    other = b.input("other", [2, 5, 3])
    length = b.op("Slice", [b.op("Shape", [b.op("NonZero", [other])]), *(b.const(np.array([i])) for i in (0, 1))])
    last = b.op("Add", [length, b.const(np.array([2]))])  # three axes and two more
    table = b.op("Slice", [b.weight(9, C), b.const(np.array([0])), last, b.const(np.array([0]))])
    b.shapes[table] = [5, C]
    b.output(b.linear(layer_norm(b, b.op("Add", [words, table])), 5))


def class_token(b: Builder) -> None:
    """A learnt token is expanded to the batch and put in front."""
    x = b.linear(b.input("x", [2, 5, 7]), C)
    token = b.op("Expand", [b.weight(1, 1, C), b.const(np.array([2, 1, 1]))])
    x = layer_norm(b, b.op("Concat", [token, x], axis=1))
    b.output(b.linear(x, 5))


def channels_last(b: Builder) -> None:
    """NHWC in the middle of a convolutional net, as ConvNeXt."""
    x = b.conv(b.input("x", [1, 3, 6, 6]), C)
    y = b.conv(x, C, group=C)
    y = layer_norm(b, b.op("Transpose", [y], perm=[0, 2, 3, 1]))
    y = b.linear(b.relu(b.linear(y, 24)), C)
    b.output(b.conv(b.op("Add", [x, b.op("Transpose", [y], perm=[0, 3, 1, 2])]), 4))


def global_response(b: Builder) -> None:
    """GRN of ConvNeXt V2: norms over space, divided by their mean over channels."""
    x = b.relu(b.conv(b.input("x", [1, 3, 6, 6]), C))
    norms = b.op("ReduceL2", [x, b.const(np.array([2, 3]))])
    mean = b.op("Add", [b.op("ReduceMean", [norms, b.const(np.array([1]))]), scalar(b, 1e-6)])
    y = b.op("Mul", [x, b.op("Div", [norms, mean])])
    y = b.op("Add", [b.op("Mul", [y, b.weight(1, C, 1, 1)]), x])
    b.output(b.conv(y, 4))


def mean_over_everything(b: Builder) -> None:
    """One mean over channels and space together."""
    x = b.relu(b.conv(b.input("x", [1, 3, 6, 6]), C))
    b.output(b.conv(b.op("Sub", [x, b.op("ReduceMean", [x, b.const(np.array([1, 2, 3]))])]), 4))


def norm_over_two_axes(b: Builder) -> None:
    x = b.relu(b.conv(b.input("x", [1, 3, 6, 6]), C))
    b.output(b.conv(b.op("LayerNormalization", [x, b.weight(C, 6, 6), b.weight(C, 6, 6)], axis=1), 4))


def maximum(b: Builder) -> None:
    x = b.relu(b.conv(b.input("x", [1, 3, 6, 6]), C))
    b.output(b.conv(b.op("Sub", [x, b.op("ReduceMax", [x, b.const(np.array([1]))])]), 4))


def statistics_are_read(b: Builder) -> None:
    x = b.linear(b.input("x", [2, 5, 7]), C)
    y, mean, _ = b.op("LayerNormalization", [x, b.weight(C), b.weight(C)], outputs=3)
    b.output(b.op("Add", [b.linear(y, 5), mean]))


RESIDUALS: dict[str, Micro] = {
    "post_norm": Micro(post_norm, [C, HEADS, 24, HEADS, 24]),
    "pre_norm": Micro(pre_norm, [C, HEADS, 24, HEADS, 24]),
    "root_mean_square": Micro(root_mean_square, [C, HEADS, HEADS]),
    "root_mean_square_node": Micro(root_mean_square_node, [C, 24], opset=23),
    "positions_to_a_run_time_length": Micro(positions_to_a_run_time_length, [C]),
    "class_token": Micro(class_token, [C]),
    "channels_last": Micro(channels_last, [C, 24]),
    "global_response": Micro(global_response, [C]),
    "mean_over_everything": Micro(mean_over_everything, [C]),
    "norm_over_two_axes": Micro(norm_over_two_axes, [], frozenset({"PC102", "PC105"})),
    "maximum": Micro(maximum, [], frozenset({"PC102", "PC105"})),
    "statistics_are_read": Micro(statistics_are_read, [], frozenset({"PC102", "PC105"})),
}
