"""The quantised form of a model whose values mean nothing: what only times are asked of needs no data."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from prunec.passes.quantise.driver import raised
from prunec.passes.quantise.placement import place
from prunec.passes.quantise.ranges import Grid
from prunec.passes.quantise.write import write

_GRID = Grid(2.0**-5, 128, "none")


def unfitted(model: ir.Model, in_float: Collection[str] = (), *, bits: int = 8) -> ir.Model:
    """As `quantise` writes it, with the same grid everywhere; a model without layers for 8 bits as it is.

    `in_float`: layers that stay so; `bits` of weights, by which code for x86 without VNNI differs.

    Raises:
        PrunecError PC482: the opset is too old.
    """
    model = raised(model)
    placement = place(model, in_float)
    names = [*placement.values, *placement.shared]
    return write(model, placement, dict.fromkeys(names, _GRID), bits)
