"""Which tiles and block heights the kernels of family A get: an estimate, which tuning may overrule."""

from __future__ import annotations

import math

import numpy as np

from prunec.backends.cpu.isa import Isa

_INPUT_BYTES = 256 * 1024
"""Input of one part of the pixels: stays in the second cache while the rows of blocks go over it."""
_JOBS = 8
"""At least so many parts that threads can take, where the layer has them."""


def most_pixels(isa: Isa, vectors: int) -> int:
    """Pixels of a tile whose sums fit into the registers beside weights and, where it is not folded, the element."""
    lends = 1 if vectors > 1 or isa.registers < 32 else 0
    return max(1, (isa.registers - vectors - lends - 1) // vectors)


def choose_tile(height: int, width: int, most: int) -> tuple[int, int]:
    """The tile with the least work: overlapping tiles compute pixels twice, small ones load weights more often."""

    def work(tile: tuple[int, int]) -> tuple[float, int]:
        th, tw = tile
        return math.ceil(height / th) * math.ceil(width / tw) * (th * tw + 2.0), -tw

    sizes = [(th, tw) for tw in range(1, min(width, most) + 1) for th in range(1, min(height, most // tw) + 1)]
    return min(sizes, key=work)


def choose_rows(matrix: np.ndarray, pixels: int, isa: Isa) -> int:
    """Height of the blocks, a multiple of the lanes, for which the non-zero blocks cost least.

    Taller blocks share one element of the input among more vectors; they pay where the zeros allow it.
    """
    lanes = isa.lanes("float32")
    outputs = len(matrix)
    costs = {}
    for vectors in (1, 2, 4, 8):
        rows = vectors * lanes
        if vectors > 1 and rows >= 2 * outputs:
            break
        if vectors > 2 and pixels >= 4:  # more vectors than two leave no room for pixels
            break
        blocks = -(-outputs // rows)
        padded = np.zeros((blocks * rows, matrix.shape[1]), bool)
        padded[:outputs] = matrix != 0
        count = int(padded.reshape(blocks, rows, -1).any(axis=1).sum())
        tile = min(most_pixels(isa, vectors), pixels)
        loads = vectors + 1 + tile
        costs[rows] = count * max(vectors * tile / 2, loads / 2, 4.0) / tile
    return min(costs, key=lambda rows: costs[rows])


def choose_jobs(input_bytes: int, tiles: int, row_blocks: int) -> tuple[int, int]:
    """(chunks, groups) as `RowMajor` has them."""
    chunks = max(1, min(tiles, math.ceil(input_bytes / _INPUT_BYTES)))
    groups = max(1, min(row_blocks, math.ceil(_JOBS / chunks)))
    return chunks, groups
