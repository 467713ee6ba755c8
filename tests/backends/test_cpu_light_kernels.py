"""Depthwise convolutions, elementwise chains, pools, products of two activations, rows and reductions, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("tvm", reason="needs the [tvm] extra")

from prunec.backends.cpu.expression import Expression, binary, cast, clip, const, operand, unary, where
from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.base import Access
from prunec.backends.cpu.kernels.batch_matmul import BatchMatMul
from prunec.backends.cpu.kernels.depthwise import Depthwise
from prunec.backends.cpu.kernels.pointwise import Pointwise
from prunec.backends.cpu.kernels.pool import Pool
from prunec.backends.cpu.kernels.rows import LayerNorm, Reduce, ReduceOuter, Softmax
from tests.backends.kernel_support import convolution, empty, isas, runs, worst

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize(("channels", "k", "stride"), [(33, 3, 1), (17, 5, 2), (7, 3, 2), (64, 3, 1)])
def test_depthwise(isa: Isa, channels: int, k: int, stride: int) -> None:
    n, size, pad = 2, 9, k // 2
    x, weight, bias = normal(n, channels, size, size), normal(channels, 1, k, k), normal(channels)
    out, held = (size - 1) // stride + 1, size + 2 * pad
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad))).transpose(0, 2, 3, 1)
    strides = (held * held * channels, held * channels, channels)
    y = (out * out * channels, out * channels, channels)
    kernel = Depthwise(
        grid=(n, out, out), kernel=(k, k), channels=channels,
        x=Access(padded.size, 0, (strides[0], stride * strides[1], stride * strides[2], *strides[1:])),
        y=Access(n * out * out * channels, 0, y), epilogue=clip(operand(0), 0.0, 6.0), tile=min(4, out),
        lines=2,
    )  # fmt: skip
    found = runs(kernel, isa)(padded, weight.transpose(2, 3, 1, 0), bias, empty(n * out * out * channels))
    wanted = np.clip(convolution(x, weight, channels, stride, 1, pad) + bias[:, None, None], 0, 6)
    assert worst(found.reshape(n, out, out, channels), wanted.transpose(0, 2, 3, 1)) <= 1e-6


FUNCTIONS = {
    "exp": np.exp, "tanh": np.tanh, "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "erf": np.vectorize(math.erf),
    "sqrt": np.sqrt, "log": np.log, "abs": np.abs, "floor": np.floor, "reciprocal": lambda x: 1 / x, "sign": np.sign,
    "round": np.round,
}  # fmt: skip


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions(isa: Isa, function: str) -> None:
    """Element by element over their range: relative for exp, relative to the largest result elsewhere."""
    x = np.linspace(-12, 12, 4001, dtype=np.float32)
    x = np.abs(x) + np.float32(0.01) if function in ("sqrt", "log", "reciprocal") else x
    kernel = Pointwise((x.size,), (Access(x.size, 0, (1,)),), Access(x.size, 0, (1,)), unary(function, operand(0)))
    found = runs(kernel, isa)(x, empty(x.size))
    wanted = FUNCTIONS[function](x.astype(np.float64))
    assert np.abs(found - wanted).max() / np.abs(wanted).max() <= 5e-7
    if function == "exp":
        assert np.abs(found / wanted - 1).max() <= 3e-7


def test_exp_of_what_masks_hold() -> None:
    """−inf and large negative numbers are as good as 0, and nothing becomes NaN."""
    x = np.array([-np.inf, -1e30, -100, 0, 88, 1000], np.float32)
    kernel = Pointwise((6,), (Access(6, 0, (1,)),), Access(6, 0, (1,)), unary("exp", operand(0)))
    (isa, *_) = [p.values[0] for p in isas() if not p.marks]
    found = runs(kernel, isa)(x, empty(6))
    assert (found[:3] < 2e-38).all() and found[3] == 1 and np.isfinite(found).all()


@pytest.mark.parametrize("isa", isas())
def test_pointwise_with_broadcast_and_views(isa: Isa) -> None:
    """(x + row) where mask else −x, x transposed in memory, the result inside a larger buffer."""
    a, b = 17, 23
    x, row, mask = normal(b, a), normal(b), (RNG.random((a, b)) < 0.5).astype(np.uint8)
    value = where(operand(2, "uint8"), binary("add", operand(0), operand(1)), unary("neg", operand(0)))
    accesses = (Access(a * b, 0, (1, a)), Access(b, 0, (0, 1)), Access(a * b, 0, (b, 1), "uint8"))
    kernel = Pointwise((a, b), accesses, Access((a + 1) * 40, 3, (40, 1)), value)
    found = runs(kernel, isa)(x, row, mask, empty((a + 1) * 40)).reshape(a + 1, 40)
    wanted = np.where(mask, x.T + row, -x.T)
    assert np.array_equal(found[:a, 3 : 3 + b], wanted) and np.isnan(found[:a, 3 + b :]).all()


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_integers_and_casts(isa: Isa, dtype: str) -> None:
    x = np.arange(-9, 10, dtype=dtype)
    is_small = binary("less", operand(0, dtype), const(3, dtype))
    value: Expression = binary("mul", cast(operand(0, dtype), "float32"), cast(is_small, "float32"))
    kernel = Pointwise((19,), (Access(19, 0, (1,), dtype),), Access(19, 0, (1,)), value)
    assert np.array_equal(runs(kernel, isa)(x, empty(19)), np.where(x < 3, x, 0))


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize(("k", "stride", "pad", "dilation"), [(3, 2, 1, 1), (2, 2, 0, 1), (3, 1, 1, 2)])
def test_pools(isa: Isa, kind: str, k: int, stride: int, pad: int, dilation: int) -> None:
    n, c, size = 2, 19, 9
    x = normal(n, c, size, size)
    out = (size + 2 * pad - dilation * (k - 1) - 1) // stride + 1
    kernel = Pool(
        kind=kind, grid=(n, out, out), size=(size, size), kernel=(k, k), strides=(stride, stride), pads=(pad, pad),
        dilations=(dilation, dilation), channels=c, x=Access(x.size, 0, (size * size * c, size * c, c)),
        y=Access(n * out * out * c, 0, (out * out * c, out * c, c)),
    )  # fmt: skip
    found = runs(kernel, isa)(x.transpose(0, 2, 3, 1).copy(), empty(n * out * out * c)).reshape(n, out, out, c)
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (pad, pad), (pad, pad)), constant_values=np.nan)
    ends = stride * (out - 1) + 1 + dilation * (k - 1)
    taps = [
        padded[:, :, dy * dilation : dy * dilation + ends : stride, dx * dilation : dx * dilation + ends : stride][
            :, :, :out, :out
        ]
        for dy in range(k)
        for dx in range(k)
    ]
    wanted = (np.nanmax if kind == "max" else np.nanmean)(np.stack(taps), axis=0)
    assert worst(found, wanted.transpose(0, 2, 3, 1)) <= 1e-6


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize(("i", "j", "k"), [(7, 33, 9), (1, 8, 1), (17, 64, 31), (9, 3, 16)])
def test_batched_products(isa: Isa, i: int, j: int, k: int) -> None:
    """Scaled scores plus a mask that is broadcast over the heads."""
    a, b, mask = normal(2, 3, i, k), normal(2, 3, k, j), normal(2, j)
    kernel = BatchMatMul(
        batch=(2, 3), rows=i, columns=j, depth=k, a=Access(a.size, 0, (3 * i * k, i * k, k, 1)),
        b=Access(b.size, 0, (3 * k * j, k * j, j, 1)), y=Access(6 * i * j, 0, (3 * i * j, i * j, j, 1)),
        epilogue=binary("add", binary("mul", operand(0), const(0.25)), operand(1)),
        operands=(Access(mask.size, 0, (j, 0, 0, 1)),),
    )  # fmt: skip
    found = runs(kernel, isa)(a, b, mask, empty(6 * i * j)).reshape(2, 3, i, j)
    assert worst(found, a.astype(np.float64) @ b * 0.25 + mask[:, None, None]) <= 1e-6


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("length", [1, 9, 16, 33, 49])
def test_rows(isa: Isa, length: int) -> None:
    x, scale, shift = normal(5, length) * 4, normal(length), normal(length)
    wide = x.astype(np.float64)
    access = Access(x.size, 0, (length, 1))
    exponential = np.exp(wide - wide.max(1, keepdims=True))
    found = runs(Softmax((5,), length, access, access), isa)(x, empty(x.size)).reshape(x.shape)
    assert worst(found, exponential / exponential.sum(1, keepdims=True)) <= 1e-6
    found = runs(LayerNorm((5,), length, access, access, 1e-3), isa)(x, scale, shift, empty(x.size))
    centred = wide - wide.mean(1, keepdims=True)
    wanted = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-3) * scale + shift
    assert worst(found.reshape(x.shape), wanted) <= 2e-6


@pytest.mark.parametrize("kind", ["sum", "mean", "max", "min", "l1", "l2", "sum_square", "prod"])
def test_reductions(kind: str) -> None:
    functions = {
        "sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min, "prod": np.prod,
        "l1": lambda x, axis: np.abs(x).sum(axis), "l2": lambda x, axis: np.sqrt((x * x).sum(axis)),
        "sum_square": lambda x, axis: (x * x).sum(axis),
    }  # fmt: skip
    (isa, *_) = [p.values[0] for p in isas() if not p.marks]
    x = normal(3, 5, 21)
    kernel = Reduce((3, 5), 21, Access(x.size, 0, (105, 21, 1)), Access(15, 0, (5, 1)), kind)
    wanted = functions[kind](x.astype(np.float64), 2)
    assert worst(runs(kernel, isa)(x, empty(15)).reshape(3, 5), wanted) <= 1e-6
    outer = ReduceOuter(3, (1, 5), 21, Access(x.size, 0, (105, 0, 21, 1)), Access(63, 0, (21, 1)), kind)
    wanted = functions[kind](x.astype(np.float64), 1)
    assert worst(runs(outer, isa)(x, empty(63)).reshape(3, 21), wanted) <= 1e-6


@pytest.mark.parametrize("reduced", [(120, 97), (1, 9001), (3, 2001), (2001, 3), (8, 8)])
def test_long_reductions_over_pixels_are_made_in_parts(reduced: tuple[int, int]) -> None:
    """Of positive numbers, one after the other, they are off by 1e-5 and more: a gate multiplies a channel by that."""
    (isa, *_) = [p.values[0] for p in isas() if not p.marks]
    x = np.abs(normal(2, *reduced, 7)) + np.float32(1)
    strides = (7 * reduced[0] * reduced[1], 7 * reduced[1], 7, 1)
    for kind, function in (("mean", np.mean), ("l1", np.sum), ("sum_square", lambda a, axis: (a * a).sum(axis))):
        outer = ReduceOuter(2, reduced, 7, Access(x.size, 0, strides), Access(14, 0, (7, 1)), kind)
        found = runs(outer, isa)(x, empty(14)).reshape(2, 7)
        assert worst(found, function(x.astype(np.float64), axis=(1, 2))) <= 1e-6, kind
