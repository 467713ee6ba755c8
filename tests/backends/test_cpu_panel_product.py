"""Family B over panels against float64: awkward sizes, strides, dilations, groups, passes, operands, layouts."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tvm", reason="needs the [tvm] extra")

from prunec.backends.cpu.expression import binary, const, operand
from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.base import Access
from prunec.backends.cpu.kernels.panel import Panel, Window
from prunec.backends.cpu.kernels.panel_product import PanelProduct
from prunec.backends.cpu.pack import convolution_matrix, pack_blocks
from tests.backends.kernel_support import convolution, empty, isas, runs, sparse, worst


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize(("pixels", "rows", "strip"), [(1, 4, 1), (7, 2, 3), (49, 4, 49), (33, 8, 20), (64, 1, 40)])
def test_products_of_awkward_sizes(isa: Isa, pixels: int, rows: int, strip: int) -> None:
    """Y [pixels, m] = X [pixels, k] Wᵀ; outputs and inputs that fill no vector, strips that overlap."""
    rows = min(rows, isa.lanes("float32"))  # blocks are no taller than a vector
    rng = np.random.default_rng(pixels)
    k, m = isa.lanes("float32") + 5, 2 * isa.lanes("float32") + 3
    x, bias = rng.standard_normal((pixels, k)).astype(np.float32), rng.standard_normal(m).astype(np.float32)
    weight = sparse(rng, m, k, rows, 0.5)
    window = Window((1, 1), (1, 1), (1, 1), k, (0, k, 1))
    packed = pack_blocks(weight, Panel(window, 1, strip, isa.lanes("float32")).offsets(), rows)
    kernel = PanelProduct(
        grid=(1, 1, pixels), channels=m, rows=rows, columns=k, x=Access(x.size, 0, (0, 0, k)),
        y=Access(pixels * m, 0, (0, 0, m)), epilogue=operand(0), window=window, strip=(1, strip), vectors=2,
        chunks=2, groups=2,
    )  # fmt: skip
    found = runs(kernel, isa)(x, packed.values, packed.index, packed.pointer, bias, empty(pixels * m))
    assert worst(found.reshape(pixels, m), x.astype(np.float64) @ weight.T.astype(np.float64) + bias) <= 1e-6


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize(
    ("groups", "stride", "dilation", "passes", "is_last"),
    [
        (1, 1, 1, 1, True), (1, 2, 1, 1, True), (1, 1, 2, 3, True), (4, 1, 1, 2, True), (2, 2, 2, 1, False),
        (1, 3, 2, 2, False),
    ],
)  # fmt: skip
def test_convolutions(isa: Isa, groups: int, stride: int, dilation: int, passes: int, is_last: bool) -> None:
    """3×3 over a bordered input, channels last or first, with a residual, a factor per channel and a floor."""
    rng = np.random.default_rng(stride)
    n, c, m, size, k, rows = 2, 20, 36, 13, 3, 4
    weight = sparse(rng, m, c // groups * k * k, rows, 0.4).reshape(m, c // groups, k, k)
    x = rng.standard_normal((n, c, size, size)).astype(np.float32)
    out = (size + 2 * dilation - dilation * (k - 1) - 1) // stride + 1
    bias, residual, factor = (rng.standard_normal(s).astype(np.float32) for s in ((m,), (n, out, out, m), (m,)))
    held = size + 2 * dilation
    padded = np.pad(x, ((0, 0), (0, 0), (dilation, dilation), (dilation, dilation)))
    steps = (held * c, c, 1) if is_last else (held, 1, held * held)
    window = Window((k, k), (stride, stride), (dilation, dilation), c, steps)
    strip = (min(3, out), out)
    packed = pack_blocks(
        convolution_matrix(weight, groups), Panel(window, *strip, isa.lanes("float32")).offsets(), rows,
        np.tile(np.arange(c) * passes // c, k * k), passes,
    )  # fmt: skip
    plain = (out * out * m, out * m, m)
    kernel = PanelProduct(
        grid=(n, out, out), channels=m, rows=rows, columns=k * k * c,
        x=Access(padded.size, 0, (held * held * c, stride * steps[0], stride * steps[1])),
        y=Access(n * out * out * m, 0, plain),
        epilogue=binary("max", binary("mul", binary("add", operand(0), operand(1)), operand(2)), const(-0.5)),
        operands=(Access(residual.size, 0, (*plain, 1)), Access(m, 0, (0, 0, 0, 1))), window=window, strip=strip,
        vectors=3, passes=passes, chunks=3,
    )  # fmt: skip
    data = padded.transpose(0, 2, 3, 1).copy() if is_last else padded
    found = runs(kernel, isa)(
        data, packed.values, packed.index, packed.pointer, bias, residual, factor, empty(residual.size)
    )
    sums = convolution(x, weight, groups, stride, dilation, dilation) + bias[:, None, None]
    wanted = np.maximum((sums.transpose(0, 2, 3, 1) + residual) * factor, -0.5)
    assert worst(found.reshape(n, out, out, m), wanted) <= 1e-6
