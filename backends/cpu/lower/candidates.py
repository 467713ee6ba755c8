"""Ways to compute one product: kernels of both families with their tiles, and the weights packed for each.

The choice among them is a rule here (`by_rule`), or a measurement (`tuning.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from prunec.backends.cpu.expression import Expression
from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.base import Access, ceil_div
from prunec.backends.cpu.kernels.block_product import AHEAD, BlockProduct
from prunec.backends.cpu.kernels.panel import Panel, Window
from prunec.backends.cpu.kernels.panel_product import PanelProduct
from prunec.backends.cpu.kernels.row_major import Order, RowMajor
from prunec.backends.cpu.lower.tiles import (
    choose_jobs,
    choose_passes,
    choose_rows,
    choose_tile,
    most_pixels,
    passes_for_rounding,
)
from prunec.backends.cpu.pack import Packed, pack_blocks

_PANEL_BYTES = 256 * 1024
"""Of one panel: it stays in the second cache beside the weights that pass by. Up to three times as large where images
are so small that their lines alone would leave vectors of pixels half empty.
"""
_LINE = 16
"""Channels of one cache line."""
_PASS_BYTES = 20 * 1024
"""What a tile reads of a panel in one pass: it stays in the first cache."""


@dataclass(frozen=True)
class Product:
    """Y[grid, m] = epilogue(X[grid + offsets] · matrixᵀ + bias). `input_bytes`: all of X.

    `window`: the offsets as positions of a kernel; None where they are none, and only family A can read X.
    """

    isa: Isa
    grid: tuple[int, int, int]
    matrix: np.ndarray
    offsets: np.ndarray
    window: Window | None
    x: Access
    y: Access
    epilogue: Expression
    operands: tuple[Access, ...]
    input_bytes: int

    @property
    def lanes(self) -> int:
        return self.isa.lanes("float32")

    def density(self, rows: int) -> float:
        """Share of the blocks of `rows` × 1 that are there."""
        outputs, columns = self.matrix.shape
        padded = np.zeros((-(-outputs // rows) * rows, columns), bool)
        padded[:outputs] = self.matrix != 0
        blocks = padded.reshape(-1, rows, columns).any(axis=1)
        return float(blocks.mean()) if blocks.size else 0.0


@dataclass(frozen=True)
class Choice:
    """A kernel for a product. `tile`: th × tw pixels of family A, or lines × columns of a strip of family B."""

    family: Literal["row_major", "panel"]
    rows: int
    tile: tuple[int, int]
    vectors: int = 1
    passes: int = 1
    order: Order = "tiles"


@dataclass(frozen=True)
class Built:
    """The kernel and its weights: values, index, pointer."""

    kernel: BlockProduct
    weights: tuple[np.ndarray, np.ndarray, np.ndarray]


Choose = Callable[[Product], Choice]


def build(product: Product, choice: Choice) -> Built:
    """The kernel that a choice means."""
    shared: dict[str, Any] = {
        "grid": product.grid, "channels": len(product.matrix), "rows": choice.rows, "columns": product.matrix.shape[1],
        "x": product.x, "y": product.y, "epilogue": product.epilogue, "operands": product.operands,
    }  # fmt: skip
    n, h, w = product.grid
    tiles = n * ceil_div(h, choice.tile[0]) * ceil_div(w, choice.tile[1])
    kernel: BlockProduct
    if choice.family == "row_major":
        packed = _packed_by_lines(product, choice)
        row_blocks = ceil_div(len(product.matrix), choice.rows)
        jobs = choose_jobs(choice.order, packed.values.nbytes, product.input_bytes, tiles, row_blocks)
        kernel = RowMajor(
            **shared, tile=choice.tile, passes=choice.passes, chunks=jobs[0], groups=jobs[1], order=choice.order
        )
        return Built(kernel, (packed.values, _followed(packed.index), packed.pointer))
    window = product.window
    assert window is not None
    channels = window.channels
    part = np.tile(np.arange(channels) * choice.passes // channels, math.prod(window.kernel))
    offsets = Panel(window, *choice.tile, product.lanes).offsets()
    packed = pack_blocks(product.matrix, offsets, choice.rows, part, choice.passes)
    squads = ceil_div(len(product.matrix), product.lanes)
    # A panel is made once for every group of outputs: few of them, and only where the strips are too few.
    chunks = min(tiles, 8)
    groups = 1 if chunks >= 2 else min(squads, 2)
    kernel = PanelProduct(
        **shared, window=window, strip=choice.tile, vectors=choice.vectors, passes=choice.passes, chunks=chunks,
        groups=groups,
    )  # fmt: skip
    return Built(kernel, (packed.values, _followed(packed.index), packed.pointer))


def _packed_by_lines(product: Product, choice: Choice) -> Packed:
    """Blocks of one cache line of channels together, whatever kernel position they have: a tile reads the line once."""
    window, columns = product.window, product.matrix.shape[1]
    channel = np.arange(columns) if window is None else np.tile(np.arange(window.channels), math.prod(window.kernel))
    order = np.arange(columns) if window is None else np.argsort(channel // _LINE, kind="stable")
    part = np.arange(columns) * choice.passes // columns
    return pack_blocks(product.matrix[:, order], product.offsets[order], choice.rows, part, choice.passes)


def _followed(index: np.ndarray) -> np.ndarray:
    return np.append(index, np.zeros(AHEAD, np.int32))


def by_rule(product: Product) -> Choice:
    """The choice without a measurement, from layers of ResNet-18 and ResNet-50 on one AVX-512 machine.

    Family A reads a column of blocks at full height; finer blocks need family B.
    """
    dense = _row_major(product)
    window, pixels = product.window, math.prod(product.grid)
    if product.isa.loads_ahead:
        return dense  # panels need more registers than they save loads
    if window is None or pixels < product.lanes or window.channels < product.lanes // 2:
        return dense
    return _panels(product)[0] if product.density(4) < 0.75 * product.density(product.lanes) else dense


def candidates(product: Product, *, thorough: bool = False) -> list[Choice]:
    """What is worth measuring, the rule's choice first."""
    first = _row_major(product)
    others = [replace(first, order="rows", passes=1), replace(first, passes=1 if first.passes > 1 else 2)]
    panels = _panels(product)
    found = [by_rule(product), first, *(others if thorough else others[:1]), *panels[: None if thorough else 2]]
    return list(dict.fromkeys(found))


def _row_major(product: Product) -> Choice:
    n, h, w = product.grid
    rows = choose_rows(product.matrix, n * h * w, product.isa)
    tile = choose_tile(h, w, most_pixels(product.isa, rows // product.lanes))
    is_plain = product.window is None or product.window.kernel == (1, 1)
    columns, density = product.matrix.shape[1], product.density(rows)
    passes = choose_passes(math.prod(tile), columns, density) if is_plain else 1
    return Choice("row_major", rows, tile, passes=max(passes, passes_for_rounding(columns * density, product.isa)))


def _panels(product: Product) -> list[Choice]:
    """Sums of rows × vectors in registers, in strips that a panel has room for; the likely best first."""
    if product.window is None:
        return []
    fine = product.density(4) <= 0.75 * product.density(8)
    many = product.isa.registers >= 32
    shapes = [(4, 6), (8, 3), (4, 4)] if many else [(4, 3), (4, 2)]
    if not fine and many:
        shapes = [(8, 3), (4, 6), (8, 2)]
    found = []
    for rows, vectors in shapes:
        strip = _strip(product.grid, product.lanes, product.window, vectors)
        passes = _passes(product, product.window, vectors)
        found += [Choice("panel", rows, strip, vectors, n) for n in dict.fromkeys((passes, 1))]
    return found


@lru_cache(maxsize=1024)
def _strip(grid: tuple[int, int, int], lanes: int, window: Window, vectors: int) -> tuple[int, int]:
    """Lines and columns of a panel. The same for every density of a layer, and not cheap for long signals."""
    _, h, w = grid
    if h == 1:
        tile = vectors * lanes
        room = _PANEL_BYTES // (4 * window.channels * _planes(window))
        most = tile if window.kernel == (1, 1) else max(1, room // tile) * tile
        count = ceil_div(w, most)
        return 1, min(w, ceil_div(ceil_div(w, count), lanes) * lanes)
    costs: dict[int, float] = {}
    for lines in range(1, h + 1):
        panel = Panel(window, lines, w, lanes)
        if costs and panel.size * 4 > 3 * _PANEL_BYTES:
            break
        sums = ceil_div(h, lines) * ceil_div(panel.run, lanes) * lanes
        # Lines that strips share are copied for each, at the price of about a tenth of their multiply-adds.
        cost = sums + 0.1 * ceil_div(h, lines) * panel.size / window.channels
        costs[lines] = cost if panel.size * 4 <= _PANEL_BYTES else 1.5 * cost
    return min(costs, key=lambda lines: costs[lines]), w


def _planes(window: Window) -> int:
    return len(window.phases(0)) * len(window.phases(1))


def _passes(product: Product, window: Window, vectors: int) -> int:
    """How often to stop on the way through the channels so that what a tile reads stays in the first cache."""
    if window.kernel == (1, 1):
        return 1  # what is read once for a row of blocks need not stay
    lines = sum(1 + reach for reach in window.phases(0).values())
    columns = sum(vectors * product.lanes + reach for reach in window.phases(1).values())
    return max(1, min(window.channels // 16, ceil_div(lines * columns * 4 * window.channels, _PASS_BYTES)))
