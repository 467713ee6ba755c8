"""Models for the tests of targets with generated code."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from tests.graph.builder import Builder


def residual(shape: Sequence[int], width: int, *, with_pool: bool = False) -> ir.Model:
    """Stem, one residual block, head; `with_pool` puts in an operator that no code is generated for."""
    b = Builder(0)
    x = b.input("x", list(shape))
    y = b.relu(b.conv(x, width))
    if with_pool:
        y = b.op("LpPool", [y], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    y = b.relu(b.op("Add", [b.conv(b.relu(b.conv(y, width)), width), y]))
    b.output(b.gemm(b.op("Flatten", [b.op("GlobalAveragePool", [y])]), 10))
    return b.model()
