"""Micro graphs on integers: QDQ around weights and activations, QLinear operators, quantisation on the fly."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.graph.builder import Builder
from tests.graph.micros import C, Micro

IMAGE = [1, 3, 8, 8]
SCALE = 0.04


def number(b: Builder, value: float) -> str:
    return b.const(np.float32(value))


def zero(b: Builder, value: int = 128) -> str:
    return b.const(np.uint8(value))


def qdq(b: Builder, x: str, scale: float = SCALE) -> str:
    """Quantise and dequantise an activation, uint8 with a zero point."""
    parameters = [number(b, scale), zero(b)]
    return str(b.op("DequantizeLinear", [b.op("QuantizeLinear", [x, *parameters]), *parameters]))


def int8(b: Builder, *shape: int) -> str:
    """Of 7 bits: ONNX Runtime's sums of 8 saturate on processors without VNNI, where order then matters."""
    return b.const(b.rng.integers(-63, 64, shape).astype(np.int8))


def scales(b: Builder, n: int, fan_in: int) -> str:
    return b.const(((b.rng.random(n) + 0.5) / 100 / np.sqrt(fan_in)).astype(np.float32))


def weight_dq(b: Builder, *shape: int, axis: int = 0) -> str:
    """An int8 weight with a scale and a zero point for each position of `axis`."""
    n = shape[axis]
    fan_in = int(np.prod(shape)) // n
    parameters = [scales(b, n, fan_in), b.const(np.zeros(n, np.int8))]
    return str(b.op("DequantizeLinear", [int8(b, *shape), *parameters], axis=axis))


def bias_dq(b: Builder, n: int) -> str:
    values = b.const(b.rng.integers(-50, 50, n).astype(np.int32))
    return str(b.op("DequantizeLinear", [values, scales(b, n, 1)], axis=0))


def qdq_conv(b: Builder, x: str, out: int, *, group: int = 1) -> str:
    weight = weight_dq(b, out, b.shapes[x][1] // group, 3, 3)
    return str(b.op("Conv", [x, weight, bias_dq(b, out)], pads=[1] * 4, group=group))


def qdq_chain(b: Builder) -> None:
    x = qdq(b, b.relu(qdq_conv(b, qdq(b, b.input("x", IMAGE)), C)))
    x = qdq(b, b.relu(qdq_conv(b, x, C, group=C)))
    b.output(qdq_conv(b, x, 8))


def qdq_residual(b: Builder) -> None:
    x = qdq(b, qdq_conv(b, qdq(b, b.input("x", IMAGE)), C))
    y = qdq(b, b.relu(qdq_conv(b, x, 12)))
    y = qdq(b, qdq_conv(b, y, C))
    x = qdq(b, b.op("Add", [x, y]))
    b.output(b.op("Concat", [qdq_conv(b, x, 8), qdq_conv(b, qdq(b, x), 4)], axis=1))


def qdq_channels(b: Builder) -> None:
    """Activations with a scale and a zero point for each channel."""
    x = b.relu(b.conv(b.input("x", IMAGE), C))
    parameters = [b.const((b.rng.random(C) / 50 + 0.01).astype(np.float32)), b.const(np.arange(C).astype(np.uint8))]
    q = b.op("QuantizeLinear", [x, *parameters], axis=1)
    b.output(b.conv(b.op("DequantizeLinear", [q, *parameters], axis=1), 8))


def qdq_transposed(b: Builder) -> None:
    """A Linear layer as torch exports it: DequantizeLinear → Transpose → MatMul, and Gemm with transB."""
    x = qdq(b, b.input("x", [2, 6]))
    first = b.op("Transpose", [weight_dq(b, C, 6)], perm=[1, 0])
    y = qdq(b, b.relu(b.op("MatMul", [x, first])))
    y = qdq(b, b.relu(b.op("Gemm", [y, weight_dq(b, 12, C), bias_dq(b, 12)], transB=1)))
    b.output(b.op("MatMul", [y, weight_dq(b, 12, 5, axis=1)]))


def qdq_fake(b: Builder) -> None:
    """Quantisation-aware training leaves float weights behind QuantizeLinear and DequantizeLinear."""
    x = qdq(b, b.input("x", IMAGE))
    for out in (C, 8):
        parameters = [scales(b, out, 27), b.const(np.zeros(out, np.int8))]
        q = b.op("QuantizeLinear", [b.weight(out, b.shapes[x][1], 3, 3), *parameters], axis=0)
        x = b.op("Conv", [x, b.op("DequantizeLinear", [q, *parameters], axis=0)], pads=[1] * 4)
        x = b.relu(x) if out == C else x
    b.output(x)


def qdq_shared(b: Builder) -> None:
    """One dequantised weight, two readers: one tensor, cut alike."""
    x = qdq(b, b.linear(b.input("x", [2, 5, 12]), C))
    shared = weight_dq(b, C, C)
    x = qdq(b, b.op("MatMul", [x, shared]))
    b.output(b.linear(b.op("MatMul", [x, shared]), 3))


def qdq_shared_whole(b: Builder) -> None:
    """The weight is an output of the model as well, so it stays whole."""
    shared = weight_dq(b, C, 12, axis=1)
    whole = b.op("Neg", [shared])
    x = b.op("MatMul", [b.linear(b.input("x", [2, 5, 7]), C), shared])
    b.output(b.linear(b.relu(x), 4), whole)


def weight_blocks(b: Builder) -> None:
    """Weight-only, 16 input channels share a scale: they go together."""
    x = b.relu(b.linear(b.input("x", [2, 5, 12]), 64))
    grid = [b.const(b.rng.random((4, 10)).astype(np.float32) / 100)]
    weight = b.op("DequantizeLinear", [int8(b, 64, 10), *grid], axis=0, block_size=16)
    b.output(b.linear(b.relu(b.op("MatMul", [x, weight])), 4))


def qlinear_conv(b: Builder, x: str, out: int, *, group: int = 1) -> str:
    channels = b.shapes[x][1] // group
    inputs = [x, number(b, SCALE), zero(b), int8(b, out, channels, 3, 3), scales(b, out, 9 * channels)]
    inputs += [b.const(np.zeros(out, np.int8)), number(b, SCALE), zero(b)]
    inputs.append(b.const(b.rng.integers(-2000, 2000, out).astype(np.int32)))
    return str(b.op("QLinearConv", inputs, pads=[1] * 4, group=group))


def quantised(b: Builder, x: str) -> str:
    return str(b.op("QuantizeLinear", [x, number(b, SCALE), zero(b)]))


def qlinear(b: Builder) -> None:
    """Convolutions, a residual, a concatenation and a pool, on integers from end to end; the answer is uint8."""
    one = [number(b, SCALE), zero(b)]
    x = qlinear_conv(b, quantised(b, b.input("x", IMAGE)), C)
    y = b.contrib("QLinearLeakyRelu", [qlinear_conv(b, x, C), *one, *one], alpha=0.1)
    x = b.contrib("QLinearAdd", [x, *one, y, *one, *one])
    y = b.contrib("QLinearSigmoid", [qlinear_conv(b, x, 8), *one, number(b, 1 / 256), zero(b, 0)])
    joined = b.contrib("QLinearConcat", [*one, x, *one, y, number(b, 1 / 256), zero(b, 0)], axis=1)
    x = b.contrib("QLinearGlobalAveragePool", [qlinear_conv(b, joined, 12), *one, *one], channels_last=0)
    x = b.reshape(x, [1, 12])
    inputs = [x, *one, int8(b, 5, 12), scales(b, 5, 12), b.const(np.zeros(5, np.int8))]
    inputs += [b.const(b.rng.integers(-2000, 2000, 5).astype(np.int32)), *one]
    b.output(b.contrib("QGemm", inputs, transB=1), dtype=TensorProto.UINT8)


def qlinear_depthwise(b: Builder) -> None:
    x = qlinear_conv(b, quantised(b, b.input("x", IMAGE)), C)
    x = qlinear_conv(b, qlinear_conv(b, x, C, group=C), 8)
    b.output(b.op("DequantizeLinear", [x, number(b, SCALE), zero(b)]))


def qlinear_matmul(b: Builder) -> None:
    one = [number(b, SCALE), zero(b)]
    x = quantised(b, b.input("x", [2, 5, 12]))
    for n in (C, 10):
        weight = [int8(b, b.shapes[x][-1], n), scales(b, n, 12), b.const(np.zeros(n, np.int8))]
        x = b.op("QLinearMatMul", [x, *one, *weight, *one])
    b.output(b.linear(b.op("DequantizeLinear", [x, *one]), 4))


def on_the_fly(b: Builder) -> None:
    """DynamicQuantizeLinear: the scale comes from the range of all channels, which a zero does not change."""
    x = b.input("x", [2, 5, 12])
    for n in (C, 10):
        data, scale, zero_point = b.op("DynamicQuantizeLinear", [x], outputs=3)
        y = b.op("MatMulInteger", [data, int8(b, b.shapes[x][-1], n), zero_point, b.const(np.zeros(n, np.int8))])
        y = b.op("Mul", [b.op("Cast", [y], to=TensorProto.FLOAT), b.op("Mul", [scale, scales(b, n, 12)])])
        x = b.relu(b.op("Add", [y, b.weight(n)]))
    b.output(b.linear(x, 4))


def integer_arithmetic(b: Builder) -> None:
    """A bias added and a positive part taken in int32, before anything is scaled."""
    x = b.op("QuantizeLinear", [b.relu(b.linear(b.input("x", [2, 5, 12]), C)), number(b, SCALE), zero(b)])
    y = b.op("MatMulInteger", [x, int8(b, C, 10), zero(b), b.const(np.int8(0))])
    y = b.op("Add", [y, b.const(b.rng.integers(-500, 500, 10).astype(np.int32))])
    y = b.op("Cast", [b.op("Max", [y, b.const(np.int32(0))])], to=TensorProto.FLOAT)
    b.output(b.linear(b.op("Mul", [y, number(b, 0.001)]), 4))


def on_the_fly_conv(b: Builder) -> None:
    x = b.relu(b.conv(b.input("x", IMAGE), C))
    data, scale, zero_point = b.op("DynamicQuantizeLinear", [x], outputs=3)
    y = b.op("ConvInteger", [data, int8(b, 10, C, 3, 3), zero_point, b.const(np.int8(0))], pads=[1] * 4)
    y = b.op("Mul", [b.op("Cast", [y], to=TensorProto.FLOAT), b.op("Mul", [scale, number(b, 0.001)])])
    b.output(b.conv(b.relu(y), 8))


def quantised_attention(b: Builder) -> None:
    x = b.op("QuantizeLinear", [b.linear(b.input("x", [2, 5, 12]), C), number(b, SCALE), zero(b)])
    weight = b.const(b.rng.integers(-127, 128, (C, 72)).astype(np.int8))
    inputs = [x, weight, b.weight(72), number(b, SCALE), scales(b, 72, C), "", zero(b), b.const(np.zeros(72, np.int8))]
    b.output(b.linear(b.contrib("QAttention", inputs, num_heads=4), 12))


QUANTISED: dict[str, Micro] = {
    "qdq_chain": Micro(qdq_chain, [16]),
    "qdq_residual": Micro(qdq_residual, [16, 12]),
    "qdq_channels": Micro(qdq_channels, [16]),
    "qdq_transposed": Micro(qdq_transposed, [16, 12]),
    "qdq_fake": Micro(qdq_fake, [16]),
    "qdq_shared": Micro(qdq_shared, [16]),
    "qdq_shared_whole": Micro(qdq_shared_whole, [], frozenset({"PC102", "PC103"})),
    "weight_blocks": Micro(weight_blocks, [4, 10], opset=21),
    "qlinear": Micro(qlinear, [16, 8, 12]),
    "qlinear_depthwise": Micro(qlinear_depthwise, [16]),
    "qlinear_matmul": Micro(qlinear_matmul, [16, 10]),
    "on_the_fly": Micro(on_the_fly, [16, 10]),
    "integer_arithmetic": Micro(integer_arithmetic, [16, 10]),
    "on_the_fly_conv": Micro(on_the_fly_conv, [16, 10]),
    "quantised_attention": Micro(quantised_attention, [16, 4]),
}
