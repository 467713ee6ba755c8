"""int8 weights as the kernels read them: blocks of 4 outputs × 4 inputs, of which those that hold a non-zero exist."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.quads import QUAD
from prunec.diagnostics import PrunecError

_LARGEST = 2.0**31 - 1
_PAIR = 128
"""255 times as much is the most that a pair of products may be, up or down: 32640."""
_MOVED = 64
"""What makes numbers of 7 bits positive."""


@dataclass(frozen=True)
class Weights:
    """Of one layer: `matrix` int8 [M, C, kh, kw], `bias` int32 [M], `scale` float32 [M], the input's zero point.

    `scale` is what the int32 sums are multiplied by: x_scale · w_scale, divided by y_scale where y is uint8.
    """

    matrix: np.ndarray
    bias: np.ndarray
    scale: np.ndarray
    x_zero: int

    def corrected_bias(self, moved: int = 0) -> np.ndarray:
        """int32 [M]: bias − (x_zero − moved) · Σ weights, so that sums over x − moved are sums over x − x_zero.

        Raises:
            PrunecError PC485: sums may leave int32 on the way, or behind the scale.
        """
        rows = self.matrix.reshape(len(self.matrix), -1).astype(np.int64)
        bias = self.bias.astype(np.int64) - self.x_zero * rows.sum(axis=1)
        high = bias + 255 * np.maximum(rows, 0).sum(axis=1)
        low = bias + 255 * np.minimum(rows, 0).sum(axis=1)
        largest = np.maximum(np.maximum(high, -low), np.abs(bias)).astype(np.float64)
        scaled = largest * np.maximum(np.abs(self.scale.astype(np.float64)), 1.0)
        if not (np.isfinite(self.scale).all() and (scaled <= _LARGEST).all()):
            raise PrunecError("PC485", "int8 sums of this layer may leave 32 bits", hint="keep the layer in float32")
        corrected: np.ndarray = (bias + moved * rows.sum(axis=1)).astype(np.int32)  # beyond 32 bits sums come round
        return corrected


@dataclass(frozen=True)
class Packing:
    """How instructions want the weights of a layer: `words` of 32 bits for four of them.

    One word holds four bytes, two hold pairs of 16 bits for where products of bytes cannot be added: x86 without VNNI
    adds those of two neighbours in 16 bits, which is exact for weights of 7 bits and others whose pairs are small
    (`fits_pairs`). `weights_moved` is added to weights, `pixels_moved` taken from pixels (`kernels/dot_wasm.py`,
    `dot_arm64.py`).
    """

    words: int
    pixels_moved: int = 0
    weights_moved: int = 0


def packing(isa: Isa, matrix: np.ndarray, *, is_depthwise: bool = False) -> Packing:
    """What a layer with these int8 weights gets."""
    if not isa.has_dot:
        return Packing(1 if isa.int8 == "x86" and not is_depthwise and fits_pairs(matrix) else 2)
    if isa.int8 == "wasm":
        has_seven_bits = matrix.min(initial=0) >= -_MOVED and matrix.max(initial=0) < _MOVED
        return Packing(1, 128, _MOVED) if has_seven_bits and not is_depthwise else Packing(2)
    return Packing(1, 128 if isa.int8 == "arm64" else 0)


def fits_pairs(matrix: np.ndarray) -> bool:
    """Whether 255 times two neighbouring input channels' weights of `matrix` int8 [M, C, kh, kw] stay within int16."""
    outputs, channels, *_ = matrix.shape
    even = np.pad(matrix.astype(np.int16), ((0, 0), (0, channels % 2), (0, 0), (0, 0)))
    pairs = even.reshape(outputs, -1, 2, *even.shape[2:])
    most, least = (np.clip(pairs, low, high).sum(axis=2) for low, high in ((0, None), (None, 0)))
    return bool(most.max(initial=0) <= _PAIR and least.min(initial=0) >= -_PAIR)


@dataclass(frozen=True)
class Blocks:
    """`values` int32 [blocks · 4 · words], `index` int32 [blocks], `pointer` int32 [passes · rows of blocks + 1]."""

    values: np.ndarray
    index: np.ndarray
    pointer: np.ndarray

    @property
    def blocks(self) -> int:
        return len(self.index)


def pack_quads(matrix: np.ndarray, offsets: np.ndarray, form: Packing, passes: int = 1) -> Blocks:
    """The non-zero blocks of `matrix` int8 [M, C, kh, kw], row of blocks by row of blocks.

    `offsets` int [quads, kh, kw]: what goes into `index` for a quad of channels and a position. Blocks of the first
    part of the quads come first, all rows of them, then those of the next of `passes` parts.
    """
    outputs, channels, *kernel = matrix.shape
    rows, quads = -(-outputs // QUAD), -(-channels // QUAD)
    padded = np.zeros((rows * QUAD, quads * QUAD, *kernel), np.int8)
    padded[:outputs, :channels] = matrix
    # [rows, quads, kh, kw, 4 outputs, 4 inputs]
    blocks = padded.reshape(rows, QUAD, quads, QUAD, *kernel).transpose(0, 2, 4, 5, 1, 3)
    present = (blocks != 0).any(axis=(4, 5))
    values, index, counts = [], [], []
    for part in np.array_split(np.arange(quads), passes):
        own = present[:, part]
        values.append(blocks[:, part][own])
        index.append(np.broadcast_to(offsets[part], own.shape)[own])
        counts.append(own.sum(axis=(1, 2, 3)))
    pointer = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    return Blocks(
        packed_words(np.concatenate(values), form), np.concatenate(index).astype(np.int32), pointer.astype(np.int32)
    )


def packed_words(weights: np.ndarray, form: Packing) -> np.ndarray:
    """int32, flat, of int8 [..., 4]: four bytes, or two pairs of 16 bits."""
    if form.words == 1:
        return np.ascontiguousarray(weights + np.int8(form.weights_moved)).reshape(-1).view(np.int32)
    wide = weights.astype(np.int16)
    pairs = np.stack([wide[..., 0::2], wide[..., 1::2]], axis=-2)
    return np.ascontiguousarray(pairs).reshape(-1).view(np.int32)
