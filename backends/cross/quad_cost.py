"""What an int8 product takes on a processor that is not here: `cost_model` for blocks of 4 outputs × 4 inputs.

A block needs 4 × vectors products of four bytes each, loads of its pixels, its weights and its index, and what makes
operands of bytes; a row of blocks ends with an epilogue that makes bytes again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.base import ceil_div, tiles
from prunec.backends.cpu.kernels.quad_product import QuadProduct
from prunec.backends.cpu.quads import QUAD

if TYPE_CHECKING:
    from prunec.backends.cross.cost_model import Core

_EPILOGUE = 20
"""Vector instructions for a vector of pixels: four conversions, products and roundings, then packing and limits."""


def quad_cycles(core: Core, isa: Isa, kernel: QuadProduct, blocks: int) -> float:
    """Of one run on one thread; `blocks`: all that are there."""
    runs = kernel.grid[0] * (1 if kernel.panel is None else ceil_div(kernel.grid[1], kernel.lines))
    in_registers = 0.0
    for _, count, vectors in tiles(ceil_div(kernel.run, isa.lanes("int32")), kernel.vectors):
        per_block = _block(core, isa, kernel.words, vectors)
        rows = kernel.row_blocks * kernel.passes
        per_row = core.tile + vectors * _EPILOGUE / core.arithmetic
        in_registers += runs * count * (blocks * per_block + rows * per_row)
    weights = blocks * (QUAD * kernel.words + 1) * 4
    values = kernel.x.size + kernel.y.size * (4 if kernel.y.dtype == "float32" else 1)
    copied = 2 * kernel.x.size / isa.vector_bytes / core.loads if kernel.panel is not None else 0.0
    far = weights + (values if values > core.second_cache else 0)
    return max(in_registers + copied, far / core.memory_bytes)


def _block(core: Core, isa: Isa, words: int, vectors: int) -> float:
    """Cycles for the products of one block in a tile of so many vectors."""
    is_wasm = isa.int8 == "wasm"
    each = 2 * words if words > 1 else 1  # products of 16 bits, and sums apart
    extra = vectors if is_wasm and words == 1 else 0
    arithmetic = vectors * (QUAD * each + words) + extra
    loads = vectors + 1 + (QUAD * words if is_wasm else 1)
    return max(
        arithmetic / core.arithmetic, loads / core.loads, (arithmetic + loads + core.block) / core.issue, core.latency
    )
