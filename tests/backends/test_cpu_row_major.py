"""Family A against float64 at awkward sizes: products, convolutions, epilogues, tails, dense and block-sparse."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tvm", reason="needs the [tvm] extra")

from prunec.backends.cpu.expression import Expression, binary, operand, relu
from prunec.backends.cpu.isa import WASM, Isa
from prunec.backends.cpu.kernels.base import Access
from prunec.backends.cpu.kernels.row_major import Order, RowMajor
from prunec.backends.cpu.lower.candidates import Choice, Product, build, by_rule
from prunec.backends.cpu.lower.lowering import lower
from prunec.backends.cpu.lower.prepare import prepare
from prunec.backends.cpu.lower.tiles import choose_tile
from prunec.backends.cpu.pack import convolution_matrix, convolution_offsets, pack_blocks
from tests.backends.kernel_support import SIZES, convolution, empty, isas, runs, sparse, worst
from tests.graph.builder import Builder

SUM = operand(0)


def product(
    isa: Isa, n: int, k: int, m: int, rows: int, density: float, tile: int, epilogue: Expression = SUM
) -> float:
    """Relative error of Y = epilogue(X Wᵀ + b) [n, m]."""
    rng = np.random.default_rng([n, k, m])
    x = rng.standard_normal((n, k), dtype=np.float32)
    weight, bias = sparse(rng, m, k, rows, density), rng.standard_normal(m).astype(np.float32)
    packed = pack_blocks(weight, np.arange(k), rows)
    kernel = RowMajor(
        grid=(1, 1, n), channels=m, rows=rows, columns=k, x=Access(n * k, 0, (0, 0, k)), y=Access(n * m, 0, (0, 0, m)),
        epilogue=epilogue, tile=(1, min(tile, n)), chunks=2, groups=2,
    )  # fmt: skip
    found = runs(kernel, isa)(x, packed.values, packed.index, packed.pointer, bias, empty(n * m))
    wanted = x.astype(np.float64) @ weight.T.astype(np.float64) + bias
    return worst(found.reshape(n, m), np.maximum(wanted, 0) if epilogue != SUM else wanted)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("size", SIZES)
def test_products_of_awkward_sizes(isa: Isa, size: int) -> None:
    lanes = isa.lanes("float32")
    assert product(isa, size, 33, size, lanes, 0.5, 6) <= 1e-6
    assert product(isa, 17, size, 2 * lanes + size, 2 * lanes, 1.0, 5, relu(SUM)) <= 1e-6


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize(("groups", "stride", "dilation"), [(1, 1, 1), (1, 2, 1), (1, 1, 2), (4, 1, 1), (2, 2, 2)])
@pytest.mark.parametrize("density", [1.0, 0.25])
def test_convolutions(isa: Isa, groups: int, stride: int, dilation: int, density: float) -> None:
    """3×3 over a bordered input, with bias, a residual operand and a clip, in tiles that do not divide the grid."""
    rng = np.random.default_rng(1)
    n, c, m, size, k, rows = 2, 12, 36, 9, 3, isa.lanes("float32")
    border = dilation
    weight = sparse(rng, m, c // groups * k * k, rows, density).reshape(m, c // groups, k, k)
    if density < 1:
        assert (weight == 0).any()
    x = rng.standard_normal((n, c, size, size)).astype(np.float32)
    out = (size + 2 * border - dilation * (k - 1) - 1) // stride + 1
    bias, residual = (rng.standard_normal(s).astype(np.float32) for s in ((m,), (n, m, out, out)))
    held = size + 2 * border
    padded = np.pad(x, ((0, 0), (0, 0), (border, border), (border, border))).transpose(0, 2, 3, 1)
    packed = pack_blocks(
        convolution_matrix(weight, groups), convolution_offsets((k, k), c, (dilation * held * c, dilation * c, 1)), rows
    )
    plain = (out * out * m, out * m, m)
    kernel = RowMajor(
        grid=(n, out, out), channels=m, rows=rows, columns=k * k * c,
        x=Access(padded.size, 0, (held * held * c, stride * held * c, stride * c)),
        y=Access(n * out * out * m, 0, plain),
        epilogue=binary("max", binary("add", SUM, operand(1)), Expression("const", "float32", value=-0.5)),
        operands=(Access(residual.size, 0, (*plain, 1)),), tile=(2, min(4, out)), chunks=3, groups=1,
    )  # fmt: skip
    found = runs(kernel, isa)(
        padded, packed.values, packed.index, packed.pointer, bias, residual.transpose(0, 2, 3, 1).copy(),
        empty(residual.size),
    )  # fmt: skip
    wanted = np.maximum(convolution(x, weight, groups, stride, dilation, border) + bias[:, None, None] + residual, -0.5)
    assert worst(found.reshape(n, out, out, m), wanted.transpose(0, 2, 3, 1)) <= 1e-6


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("order", ["rows", "tiles"])
def test_passes_through_the_channels_in_both_orders(isa: Isa, order: Order) -> None:
    """Sums wait between three passes; the last line of tiles is lower, the last column overlaps, jobs are uneven."""
    rng = np.random.default_rng(2)
    (h, w), k, m, rows, passes = (7, 5), 21, 37, isa.lanes("float32"), 3
    x, bias = rng.standard_normal((h, w, k)).astype(np.float32), rng.standard_normal(m).astype(np.float32)
    weight = sparse(rng, m, k, rows, 0.5)
    packed = pack_blocks(weight, np.arange(k), rows, np.arange(k) * passes // k, passes)
    kernel = RowMajor(
        grid=(1, h, w), channels=m, rows=rows, columns=k, x=Access(x.size, 0, (0, w * k, k)),
        y=Access(h * w * m, 0, (0, w * m, m)), epilogue=relu(SUM), tile=(3, 4), chunks=2, groups=2, order=order,
        passes=passes,
    )  # fmt: skip
    found = runs(kernel, isa)(x, packed.values, packed.index, packed.pointer, bias, empty(h * w * m))
    wanted = np.maximum(x.astype(np.float64) @ weight.T.astype(np.float64) + bias, 0)
    assert worst(found.reshape(h, w, m), wanted) <= 1e-6


def test_parts_have_all_of_their_rows_also_where_they_are_empty() -> None:
    weight, part = sparse(np.random.default_rng(3), 32, 6, 16, 0.5), np.array([0, 0, 2, 2, 2, 0])
    packed = pack_blocks(weight, np.arange(6), 16, part, 4)
    assert len(packed.pointer) == 4 * 2 + 1 and packed.pointer[-1] == packed.blocks == len(packed.index)
    found = np.zeros_like(weight)
    for entry, (start, stop) in enumerate(zip(packed.pointer, packed.pointer[1:], strict=False)):
        own, row = divmod(entry, 2)
        for place in range(start, stop):
            column = packed.index[place]
            assert part[column] == own
            found[16 * row : 16 * row + 16, column] = packed.values[place]
    assert (found == weight).all() and weight.any()


def test_long_sums_of_one_channel_are_made_in_parts_where_registers_are_short() -> None:
    """A convolution of 512 taps over one channel: every part has columns, and every row of it an entry."""
    b = Builder(0)
    x = b.relu(b.input("x", [1, 1, 1024, 1]))
    b.output(b.op("Conv", [x, b.weight(16, 1, 512, 1), b.weight(16)], strides=[4, 1]))
    ready, found = prepare(b.model()), list[Product]()

    def collect(product: Product) -> Choice:
        found.append(product)
        return by_rule(product)

    lower(list(ready.graph), list(ready.graph.inputs), list(ready.graph.outputs), WASM, collect)
    (product,) = found
    built = build(product, by_rule(product))
    assert isinstance(built.kernel, RowMajor) and built.kernel.passes == 8
    values, _, pointer = built.weights
    assert len(pointer) == 8 * built.kernel.row_blocks + 1 and (np.diff(pointer) > 0).all()
    assert values.size == 16 * 512


@pytest.mark.parametrize(
    ("height", "width", "most", "tile"),
    [(1, 3136, 30, (1, 28)), (1, 49, 14, (1, 13)), (7, 7, 30, (4, 7)), (7, 7, 14, (2, 7)), (2, 3, 30, (2, 3))],
)
def test_tiles_waste_little(height: int, width: int, most: int, tile: tuple[int, int]) -> None:
    assert choose_tile(height, width, most) == tile


def test_a_wrong_weight_is_seen() -> None:
    """The comparison itself: one changed block is far outside the tolerance."""
    rng = np.random.default_rng(0)
    weight = sparse(rng, 16, 33, 16, 0.5)
    packed = pack_blocks(weight, np.arange(33), 16)
    x = rng.standard_normal((3, 33)).astype(np.float32)
    values = packed.values.copy()
    values[0] *= 1.01
    dense = np.zeros((16, 33), np.float32)
    for p, column in enumerate(packed.index):
        dense[:, column] = values[p]
    assert worst(x @ dense.T, x @ weight.T) > 1e-4
