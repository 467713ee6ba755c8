"""What tests of int8 kernels share: instruction sets, layers with extreme numbers, and what they give in int64."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from prunec.backends.cpu.isa import ARM64_DOT, AVX2, AVX512_VNNI, RELAXED_WASM, WASM, X86_INT8, Isa, cpu_flags
from prunec.backends.cpu.lower.quad_layers import Built, Steps, Taps
from prunec.backends.cpu.quad_weights import Weights
from prunec.backends.cpu.quads import FloatRows, Quads
from tests.backends.kernel_support import elsewhere, runs

HALF = replace(AVX512_VNNI, name="x86-avx512-vnni-256", vector_bytes=32, registers=16)
"""The code of AVX-VNNI in the encoding that AVX-512 has for it: runs where the other one does not."""


def int8_isas(*, is_fast: bool = False) -> list[Any]:
    """Instruction sets as parameters; skipped, with the reason, where this machine lacks one.

    Unless `is_fast`, those whose code has nothing that the others have not are for the slow tests.
    """
    have, found = cpu_flags(), []
    for isa in (*X86_INT8.values(), HALF):
        missing = sorted(set(isa.flags) - have)
        marks = [pytest.mark.skip(reason=f"this CPU lacks {', '.join(missing)}")] if missing else []
        marks += [] if is_fast or isa in (AVX512_VNNI, AVX2) else [pytest.mark.slow]
        found.append(pytest.param(isa, id=isa.name, marks=marks))
    return [*found, *elsewhere(WASM, RELAXED_WASM, ARM64_DOT)]


def largest_weight(isa: Isa) -> int:
    """Of a test for an instruction set: weights of 7 bits for products that take no more."""
    return 63 if isa is RELAXED_WASM else 127


@dataclass(frozen=True)
class Case:
    """A layer with its numbers: `image` uint8 [n, c, h, w]; `residual` as the output, or None."""

    image: np.ndarray
    weights: Weights
    steps: Steps
    taps: Taps
    residual: np.ndarray | None = None


def case(
    seed: int, shape: tuple[int, int, int, int], outputs: int, kernel: int = 1, taps: Taps | None = None,
    density: float = 1.0, *, has_residual: bool = False, low: float = 0, high: float = 255, depthwise: bool = False,
    largest: int = 127,
) -> Case:  # fmt: skip
    """Random numbers, all extremes among them; blocks are zero at random, and all of output 2. `largest`: weight."""
    rng = np.random.default_rng(seed)
    taps = taps or Taps()
    image = _extreme(rng, 0, 255, shape).astype(np.uint8)
    channels = 1 if depthwise else shape[1]
    matrix = _extreme(rng, -largest - 1, largest, (outputs, channels, kernel, kernel))
    if not depthwise:
        mask = rng.random((-(-outputs // 4), -(-channels // 4), kernel, kernel)) < density
        matrix = matrix * mask.repeat(4, axis=0).repeat(4, axis=1)[:outputs, :channels]
    matrix[2:3] = 0
    bias = rng.integers(-(2**16), 2**16, outputs).astype(np.int32)
    typical = 255 * 74 * np.sqrt(max(1, matrix[0].size * density))
    scale = (rng.random(outputs) * 400 / typical).astype(np.float32)
    weights = Weights(matrix.astype(np.int8), bias, scale, 131)
    plain = Case(image, weights, Steps(9, low, high), taps)
    if not has_residual:
        return plain
    residual = _extreme(rng, 0, 255, sums(plain).shape).astype(np.uint8)
    return replace(plain, steps=Steps(9, low, high, 0.37, 77), residual=residual)


def _extreme(rng: np.random.Generator, low: int, high: int, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform integers, a tenth of them each of the limits."""
    found = rng.integers(low, high + 1, shape)
    where = rng.random(shape)
    found[where < 0.1] = low
    found[where > 0.9] = high
    return found


def sums(given: Case) -> np.ndarray:
    """int64 [n, M, h, w]: bias + Σ (x − x_zero) · w, over an image with x_zero around it."""
    taps, matrix = given.taps, given.weights.matrix.astype(np.int64)
    top, left, bottom, right = taps.pads
    x = given.image.astype(np.int64) - given.weights.x_zero
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    kh, kw = matrix.shape[2:]
    h, w = ((x.shape[2 + a] - taps.dilations[a] * (matrix.shape[2 + a] - 1) - 1) // taps.strides[a] + 1 for a in (0, 1))
    found = np.zeros((len(x), len(matrix), h, w), np.int64) + given.weights.bias[:, None, None]
    for ky in range(kh):
        for kx in range(kw):
            y0, x0 = ky * taps.dilations[0], kx * taps.dilations[1]
            part = x[:, :, y0 : y0 + h * taps.strides[0] : taps.strides[0], x0 :: taps.strides[1]][..., :w]
            if matrix.shape[1] == 1 and x.shape[1] == len(matrix) > 1:
                found += part * matrix[:, 0, ky, kx][:, None, None]
            else:
                found += np.einsum("nchw,mc->nmhw", part, matrix[:, :, ky, kx])
    return found


def scaled(given: Case) -> np.ndarray:
    """float32 [n, M, h, w]: float32(sum) · scale, plus the residual in one rounding.

    A sum that is rounded before: as bytes are added, y's zero point among them.
    """
    exact = sums(given)
    assert np.abs(exact).max() < 2**31
    product = exact.astype(np.float32).astype(np.float64) * given.weights.scale[:, None, None].astype(np.float64)
    if given.residual is None:
        return product.astype(np.float32)
    steps = given.steps
    if steps.addition != "exact":
        first = np.clip(np.rint(product.astype(np.float32)) + steps.first_zero, steps.first_low, steps.first_high)
        pairs = [(first, steps.first_scale), (given.residual, steps.residual_scale)]
        outer, inner = pairs if steps.addition == "sum_first" else pairs[::-1]
        return _fused(*outer, _fused(*inner, steps.offset()))
    other = (given.residual.astype(np.float32) - np.float32(steps.residual_zero)) * np.float32(steps.residual_scale)
    return (product + other.astype(np.float64)).astype(np.float32)


def bytes_wanted(given: Case) -> np.ndarray:
    """uint8 [n, M, h, w], as QuantizeLinear rounds and saturates."""
    steps = given.steps
    zero = steps.zero if steps.addition == "exact" else 0
    return np.clip(np.rint(scaled(given)) + zero, steps.low, steps.high).astype(np.uint8)


def _fused(value: np.ndarray, factor: float, addend: np.ndarray | float) -> np.ndarray:
    """value · factor + addend in float32, rounded once."""
    product = value.astype(np.float64) * np.float64(np.float32(factor))
    return np.asarray(product + np.asarray(addend, np.float64)).astype(np.float32)


def run(built: Built, isa: Isa, x: np.ndarray, y: Quads | FloatRows, residual: np.ndarray | None = None) -> np.ndarray:
    """What y holds afterwards; 99 where nothing was written."""
    given = [] if residual is None else [residual]
    dtype = np.uint8 if isinstance(y, Quads) else np.float32
    return runs(built.kernel, isa)(x, *built.weights, *given, np.full(y.size, 99, dtype))
