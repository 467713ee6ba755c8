"""int8 layers as kernels with their weights: what the lowering calls (docs/decisions/0022-int8-kernels.md)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.base import Access, Kernel, ceil_div
from prunec.backends.cpu.kernels.quad_convert import Dequantise, QuadBorder, Quantise
from prunec.backends.cpu.kernels.quad_depthwise import QuadDepthwise
from prunec.backends.cpu.kernels.quad_epilogue import Addition
from prunec.backends.cpu.kernels.quad_panel import QuadPanel
from prunec.backends.cpu.kernels.quad_product import QuadProduct
from prunec.backends.cpu.quad_weights import Packing, Weights, pack_quads, packed_words, packing
from prunec.backends.cpu.quads import QUAD, FloatRows, Quads

_PANEL_BYTES = 256 * 1024
"""Of one panel: it stays in the second cache beside the weights that pass by."""
_PASS_BYTES = 20 * 1024
"""What a tile reads in one pass: it stays in the first cache."""
_FEWEST_BLOCKS = 32
"""Of a row in one pass: less would cost more than the sums that wait in memory are worth."""
_JOBS = 8


@dataclass(frozen=True)
class Steps:
    """What becomes of a sum: zero point and limits of y, in its steps (reals for a float32 y), and of a residual.

    `residual_scale`: the residual's scale over that of y. Unless `addition` is exact, the sum is rounded to a grid of
    its own before the residual is added: `first_scale`, that grid's scale over that of y, its zero point and limits.
    """

    zero: int = 0
    low: float = 0
    high: float = 255
    residual_scale: float = 0.0
    residual_zero: int = 0
    addition: Addition = "exact"
    first_scale: float = 0.0
    first_zero: int = 0
    first_low: float = 0
    first_high: float = 255

    def array(self) -> np.ndarray:
        """As the kernels' argument (`quad_epilogue`)."""
        is_exact = self.addition == "exact"
        return np.array(
            [self.zero if is_exact else 0, self.low, self.high, self.residual_scale, self.residual_zero,
             self.first_scale, self.first_zero, self.first_low, self.first_high, self.offset()], np.float32,
        )  # fmt: skip

    def offset(self) -> float:
        """y's zero point less what the zero points of the addends come to: one product is rounded, the other fused."""
        pairs = [(self.first_scale, self.first_zero), (self.residual_scale, self.residual_zero)]
        (scale, zero), inner = pairs if self.addition == "sum_first" else pairs[::-1]
        rounded = np.float32(inner[0]) * np.float32(inner[1])
        both = np.float64(np.float32(scale)) * zero + np.float64(rounded)
        return float(np.float32(self.zero) - np.float32(both))


@dataclass(frozen=True)
class Taps:
    """Where a kernel reads. `pads`: top, left, bottom, right."""

    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)


@dataclass(frozen=True)
class Choice:
    """Of a product, as `QuadProduct` has them."""

    vectors: int
    passes: int = 1


@dataclass(frozen=True)
class Built:
    """The kernel and its arguments between x and the residual, or y."""

    kernel: Kernel
    weights: tuple[np.ndarray, ...]


def quad_product(
    isa: Isa,
    weights: Weights,
    steps: Steps,
    taps: Taps,
    x: Quads,
    y: Quads | FloatRows,
    *,
    residual: Quads | None = None,
    y_channel: int = 0,
    choice: Choice | None = None,
) -> Built:
    """A convolution, or a product of rows (images of one line, kernel 1×1).

    Output channels are y's from `y_channel` on, all M of them. Raises PrunecError PC485 (`Weights.corrected_bias`).
    """
    outputs, channels, *kernel = weights.matrix.shape
    grid = (x.batch, _extent(x, 0, kernel, taps), _extent(x, 1, kernel, taps))
    assert channels == x.channels and _holds(x, taps)
    chosen, form = choice or by_rule(isa, weights.matrix, taps, x, grid), packing(isa, weights.matrix)
    source = Access(x.size, x.first - taps.pads[0] * x.strides[2] - taps.pads[1] * QUAD, x.strides[:3], "uint8")
    panel, offsets = None, _offsets(x, kernel, taps)
    if taps.strides != (1, 1):
        panel = _panel(x, y, kernel, taps, grid)
        offsets = panel.offsets()
    blocks = pack_quads(weights.matrix, offsets, form, chosen.passes)
    clamps = (steps.low, steps.high) != ((0, 255) if isinstance(y, Quads) else (-math.inf, math.inf))
    product = QuadProduct(
        grid=grid, channels=outputs, columns=offsets.size, x=source, y=_written(y, grid, y_channel, outputs),
        panel=panel, residual=None if residual is None else _written(residual, grid, 0, outputs),
        addition=steps.addition, vectors=chosen.vectors, passes=chosen.passes, clamps=clamps,
        words=form.words,
    )  # fmt: skip
    product = _with_jobs(product, isa)
    return Built(product, (blocks.values, blocks.index, blocks.pointer, *_numbers(weights, steps, form)))


def quad_depthwise(
    isa: Isa,
    weights: Weights,
    steps: Steps,
    taps: Taps,
    x: Quads,
    y: Quads,
    *,
    residual: Quads | None = None,
    y_channel: int = 0,
) -> Built:
    """A convolution with one filter for each channel: `weights.matrix` int8 [C, 1, kh, kw].

    Raises PrunecError PC485 (`Weights.corrected_bias`).
    """
    channels, _, *kernel = weights.matrix.shape
    grid = (x.batch, _extent(x, 0, kernel, taps), _extent(x, 1, kernel, taps))
    assert channels == x.channels and _holds(x, taps)
    source = Access(x.size, x.first - taps.pads[0] * x.strides[2] - taps.pads[1] * QUAD, x.strides[:3], "uint8")
    written = _written(y, grid, y_channel, channels)
    beside = None if residual is None else _written(residual, grid, 0, channels)
    images = (source, written, *(() if beside is None else (beside,)))
    if taps.strides == (1, 1) and len({image.strides[2] for image in images}) == 1:
        grid = (grid[0], 1, (grid[1] - 1) * x.pitch + grid[2])  # lines follow each other alike everywhere: one long one
    form = packing(isa, weights.matrix, is_depthwise=True)
    quads = np.zeros((x.quads, *kernel, QUAD, QUAD), np.int8)
    every = np.arange(channels)
    quads[every // QUAD, :, :, every % QUAD, every % QUAD] = weights.matrix[:, 0]
    depthwise = QuadDepthwise(
        grid=grid, channels=channels, kernel=(kernel[0], kernel[1]), strides=taps.strides, dilations=taps.dilations,
        x=source, y=written, residual=beside, addition=steps.addition,
        clamps=(steps.low, steps.high) != (0, 255), words=form.words, jobs=min(x.quads, _JOBS),
    )  # fmt: skip
    return Built(depthwise, (packed_words(quads, form), *_numbers(weights, steps, form)))


def quantise(x: Access, y: Quads, scale: float, zero: int) -> Built:
    """float32 x with strides for batch, channel, line and pixel to all channels of y."""
    return Built(Quantise(_shape(y), x, _access(y)), (np.array([scale, zero], np.float32),))


def dequantise(x: Quads, y: Access, scale: float, zero: int) -> Built:
    """The other way round."""
    return Built(Dequantise(_shape(x), y, _access(x)), (np.array([scale, zero], np.float32),))


def border(y: Quads, zero: int) -> Built:
    """Zero points around the images of y, behind whatever wrote them. No x: the weight comes first, then y."""
    return Built(QuadBorder(y), (np.array([zero], np.uint8),))


def _shape(image: Quads) -> tuple[int, int, int, int]:
    return image.batch, image.channels, image.height, image.width


def _numbers(weights: Weights, steps: Steps, form: Packing) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bias and scale of whole quads, and steps."""
    missing = (0, -len(weights.matrix) % QUAD)
    scale = np.pad(weights.scale.astype(np.float32), missing)
    return np.pad(weights.corrected_bias(form.pixels_moved), missing), scale, steps.array()


def by_rule(isa: Isa, matrix: np.ndarray, taps: Taps, x: Quads, grid: tuple[int, int, int]) -> Choice:
    """As many sums as there are registers for, in tiles alike; passes where a tile reads more than the first cache."""
    most = _most_vectors(isa, packing(isa, matrix))
    run = (grid[1] - 1) * x.pitch + grid[2] if taps.strides == (1, 1) else grid[1] * grid[2]
    vectors = ceil_div(run, isa.lanes("int32"))
    vectors = ceil_div(vectors, ceil_div(vectors, most))
    kernel = matrix.shape[2:]
    lines = 1 if kernel == (1, 1) else kernel[0]
    bytes_read = x.quads * lines * (vectors * isa.vector_bytes + QUAD * (kernel[1] - 1))
    blocks = np.count_nonzero(_present(matrix)) / ceil_div(len(matrix), QUAD)
    return Choice(vectors, max(1, min(round(bytes_read / _PASS_BYTES), int(blocks / _FEWEST_BLOCKS))))


def _most_vectors(isa: Isa, form: Packing) -> int:
    """Of a tile: four sums for each, and registers are left for the pixels and a weight, or both halves of them.

    Bytes on x86 without VNNI need two more: for their products, and the ones that add those in pairs.
    """
    if isa.registers < 32:
        return 3 if isa.has_dot and form.words == 1 and not form.weights_moved else 2
    return 4 if form.words == 2 else 6 if isa.has_dot else 5


def _present(matrix: np.ndarray) -> np.ndarray:
    """bool [rows of blocks, columns of blocks, kh, kw]: which blocks hold a non-zero."""
    outputs, channels, *_ = matrix.shape
    padded = np.pad(matrix != 0, ((0, -outputs % QUAD), (0, -channels % QUAD), (0, 0), (0, 0)))
    blocks = padded.reshape(-1, QUAD, padded.shape[1] // QUAD, QUAD, *matrix.shape[2:])
    found: np.ndarray = np.asarray(blocks.any(axis=(1, 3)))
    return found


def candidates(isa: Isa, matrix: np.ndarray, taps: Taps, x: Quads, grid: tuple[int, int, int]) -> list[Choice]:
    """What is worth measuring, the rule's choice first."""
    first = by_rule(isa, matrix, taps, x, grid)
    most = _most_vectors(isa, packing(isa, matrix))
    tiles = sorted({first.vectors, max(1, most - 2), most})
    others = [Choice(vectors, passes) for vectors in tiles for passes in dict.fromkeys((first.passes, 1))]
    return list(dict.fromkeys((first, *others)))


def _extent(x: Quads, axis: int, kernel: list[int], taps: Taps) -> int:
    """Lines or columns of the output."""
    whole = (x.height, x.width)[axis] + taps.pads[axis] + taps.pads[axis + 2]
    return (whole - taps.dilations[axis] * (kernel[axis] - 1) - 1) // taps.strides[axis] + 1


def _holds(x: Quads, taps: Taps) -> bool:
    """Whether the border of x is as wide as the kernel wants it."""
    top, left, bottom, right = taps.pads
    return x.border[0] >= top and x.border[2] >= bottom and x.gap >= max(left, right)


def _offsets(x: Quads, kernel: list[int], taps: Taps) -> np.ndarray:
    """int64 [quads, kernel rows, kernel columns]: bytes from what output (0, 0) reads first."""
    down, right = taps.dilations[0] * x.strides[2], taps.dilations[1] * QUAD
    c, ky, kx = np.meshgrid(np.arange(x.quads), np.arange(kernel[0]), np.arange(kernel[1]), indexing="ij")
    found: np.ndarray = c * x.strides[1] + ky * down + kx * right
    return found


def _panel(x: Quads, y: Quads | FloatRows, kernel: list[int], taps: Taps, grid: tuple[int, int, int]) -> QuadPanel:
    """Of all lines if they fit; as wide as y where that is wide enough, so that it takes what is computed as it is."""

    def panel(lines: int, pitch: int = 0) -> QuadPanel:
        return QuadPanel((kernel[0], kernel[1]), taps.strides, taps.dilations, x.quads, lines, grid[2], pitch)

    lines = grid[1]
    while lines > 1 and panel(lines).size > _PANEL_BYTES:
        lines = ceil_div(lines, 2)
    is_near = isinstance(y, Quads) and panel(lines).pitch <= y.pitch <= panel(lines).pitch + 1
    return panel(lines, y.pitch) if isinstance(y, Quads) and is_near and lines == grid[1] else panel(lines)


def _written(y: Quads | FloatRows, grid: tuple[int, int, int], channel: int, outputs: int) -> Access:
    """Where the outputs lie in y, or in a residual."""
    if isinstance(y, FloatRows):
        assert (y.batch, y.rows, y.channels, channel) == (grid[0], grid[1] * grid[2], outputs, 0)
        return Access(y.size, 0, (y.rows * y.channels, y.channels))
    assert (y.batch, y.height, y.width) == grid and channel + outputs <= y.channels
    return _access(y, channel)


def _access(image: Quads, channel: int = 0) -> Access:
    return Access(image.size, image.quad(channel), image.strides[:3], "uint8")


def _with_jobs(product: QuadProduct, isa: Isa) -> QuadProduct:
    """Parts for threads: of the pixels as far as there are tiles, then of the outputs."""
    tiles = ceil_div(ceil_div(product.run, isa.lanes("int32")), product.vectors)
    parts = tiles if product.panel is None else product.grid[0] * ceil_div(product.grid[1], product.lines)
    chunks = min(parts, _JOBS)
    squad = isa.lanes("int32") // QUAD if product.y.dtype == "float32" else 1
    most = _JOBS // chunks if product.panel is None else 2 // chunks  # every group of outputs copies a panel again
    groups = max(1, min(most, ceil_div(product.row_blocks, squad)))
    return replace(product, chunks=chunks, groups=groups)
