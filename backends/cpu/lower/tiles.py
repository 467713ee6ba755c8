"""Which tiles and block heights the kernels of family A get: an estimate, which tuning may overrule."""

from __future__ import annotations

import math

import numpy as np

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.row_major import Order

_INPUT_BYTES = 256 * 1024
"""Input of one part of the pixels: stays in the second cache while the rows of blocks go over it."""
_WEIGHT_BYTES = 256 * 1024
"""Weights of one part of the rows of blocks: stay in the second cache while the tiles go over them."""
_TILE_BYTES = 48 * 1024
"""What a tile may read of X for one row of blocks, and again for the next one."""
_FEWEST_BLOCKS = 24
"""Of a row in one pass: less would cost more than the sums that wait in memory are worth."""
_PASSES = 4
_TERMS, _MOST_PARTS = 64, 8
"""Of a sum in one part, and parts at most. With 128, layers of 192 channels were off by half as much again."""
_SHORT_BYTES = 16
_JOBS = 16
"""At least so many parts that threads can take, where the layer has them."""


def most_pixels(isa: Isa, vectors: int) -> int:
    """Pixels of a tile whose sums fit into the registers beside weights and, where it is not folded, the element."""
    if isa.loads_ahead:
        return max(1, (isa.registers - 1) // (vectors + 1))
    lends = 1 if vectors > 1 or isa.registers < 32 else 0
    return max(1, (isa.registers - vectors - lends - 1) // vectors)


def choose_tile(height: int, width: int, most: int) -> tuple[int, int]:
    """The tile with the least work: overlapping tiles compute pixels twice, small ones load weights more often.

    The last line of tiles may be lower. Among equals one without overlap is best (its sums may replace an operand),
    then the widest.
    """

    def work(tile: tuple[int, int]) -> tuple[float, bool, int]:
        th, tw = tile
        full, rest = divmod(height, th)
        columns = math.ceil(width / tw)
        lines = full * (th * tw + 2.0) + (rest * tw + 2.0 if rest else 0.0)
        return columns * lines, width % tw != 0, -tw

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
        # Without fused multiply-adds twice as many instructions compute, and loads are not folded into them. Elsewhere
        # two loads a cycle are never reached.
        cycles = vectors * tile + loads / 2 if isa.loads_ahead else max(vectors * tile / 2, loads * 0.6, 4.0)
        costs[rows] = count * cycles / tile
    return min(costs, key=lambda rows: costs[rows])


def choose_passes(pixels: int, columns: int, density: float) -> int:
    """Into how many parts a tile of a product divides the channels, so that what it reads stays in the first cache.

    Dense rows of blocks use each cache line of X for all of its channels in a row, and need none.
    """
    is_worth = pixels * columns * 4 > _TILE_BYTES and density < 0.75 and columns * density / _PASSES >= _FEWEST_BLOCKS
    return _PASSES if is_worth else 1


def passes_for_rounding(terms: float, isa: Isa) -> int:
    """Parts that a sum of so many terms is made of where a register holds few of them.

    ONNX Runtime adds in parts everywhere; with wide registers the difference stays far below 1e-5 of an output's range.
    """
    return 1 if isa.vector_bytes > _SHORT_BYTES else max(1, min(_MOST_PARTS, round(terms / _TERMS)))


def choose_jobs(order: Order, weight_bytes: int, input_bytes: int, tiles: int, row_blocks: int) -> tuple[int, int]:
    """(chunks, groups) as `RowMajor` has them."""
    if order == "tiles":
        groups = max(1, min(row_blocks, math.ceil(weight_bytes / _WEIGHT_BYTES)))
        chunks = max(1, min(tiles, math.ceil(_JOBS / groups)))
        return chunks, max(groups, min(row_blocks, math.ceil(_JOBS / chunks)))
    chunks = max(1, min(tiles, math.ceil(input_bytes / _INPUT_BYTES)))
    return chunks, max(1, min(row_blocks, math.ceil(_JOBS / chunks)))


def choose_pixels(width: int, isa: Isa) -> int:
    """Pixels of a line that a depthwise convolution computes at once: with as little overlap as possible."""
    most = min(width, 8 if isa.registers >= 32 else 4)
    return min(range(1, most + 1), key=lambda pixels: (math.ceil(width / pixels) * (pixels + 2), -pixels))


def choose_lines(images: int, height: int, line_bytes: int) -> int:
    """Lines of one job of a depthwise convolution, whose input is `line_bytes` for each."""
    return max(1, min(_INPUT_BYTES // max(line_bytes, 1), math.ceil(height * images / _JOBS), height))
