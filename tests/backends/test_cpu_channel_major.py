"""Family B against float64: fine blocks, rows of awkward length, convolutions, epilogues, strided inputs."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tvm", reason="needs the [tvm] extra")

from prunec.backends.cpu.expression import binary, operand, unary
from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.base import Access
from prunec.backends.cpu.kernels.channel_major import ChannelMajor
from prunec.backends.cpu.pack import convolution_matrix, convolution_offsets, pack_blocks
from tests.backends.kernel_support import SIZES, convolution, empty, isas, runs, sparse, worst


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("size", SIZES)
def test_products_of_awkward_sizes(isa: Isa, size: int) -> None:
    """Y [m, pixels] = W [m, k] X [k, pixels] with 4×1 blocks, and a last row of blocks that is not full."""
    rng = np.random.default_rng(size)
    k, m, rows = 9, size + 2, 4
    x, bias = rng.standard_normal((k, size)).astype(np.float32), rng.standard_normal(m).astype(np.float32)
    weight = sparse(rng, m, k, rows, 0.5)
    packed = pack_blocks(weight, np.arange(k) * size, rows)
    kernel = ChannelMajor(
        grid=(1, 1, size), channels=m, rows=rows, columns=k, x=Access(k * size, 0, (0, 0, 1)),
        y=Access(m * size, 0, (0, 0, 1, size)), epilogue=operand(0), tile=min(size, 20), groups=2,
    )  # fmt: skip
    found = runs(kernel, isa)(x, packed.values, packed.index, packed.pointer, bias, empty(m * size))
    assert worst(found.reshape(m, size), weight.astype(np.float64) @ x + bias[:, None]) <= 1e-6


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize(("rows", "stride"), [(1, 1), (2, 1), (8, 1), (4, 2)])
def test_convolutions(isa: Isa, rows: int, stride: int) -> None:
    """3×3 over a bordered input in channels-first order, with a residual and a sigmoid."""
    rng = np.random.default_rng(rows)
    n, c, m, size, k = 2, 5, 12, 19, 3
    weight = sparse(rng, m, c * k * k, rows, 0.4).reshape(m, c, k, k)
    x = rng.standard_normal((n, c, size, size)).astype(np.float32)
    out, held = (size - 1) // stride + 1, size + 2
    bias, residual = (rng.standard_normal(s).astype(np.float32) for s in ((m,), (n, m, out, out)))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    packed = pack_blocks(convolution_matrix(weight, 1), convolution_offsets((k, k), c, (held, 1, held * held)), rows)
    plain = (m * out * out, out, 1, out * out)
    kernel = ChannelMajor(
        grid=(n, out, out), channels=m, rows=rows, columns=k * k * c,
        x=Access(padded.size, 0, (c * held * held, stride * held, stride)), y=Access(residual.size, 0, plain),
        epilogue=unary("sigmoid", binary("add", operand(0), operand(1))), operands=(Access(residual.size, 0, plain),),
        tile=min(out, 16),
    )  # fmt: skip
    arguments = (padded, packed.values, packed.index, packed.pointer, bias, residual, empty(residual.size))
    found = runs(kernel, isa)(*arguments)
    wanted = convolution(x, weight, 1, stride, 1, 1) + bias[:, None, None] + residual
    assert worst(found.reshape(residual.shape), 1 / (1 + np.exp(-wanted))) <= 1e-6
