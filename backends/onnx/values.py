"""Values inside a model, in parts that one session can return without filling the memory."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

AT_ONCE_BYTES = 1 << 28
"""Of values that one pass returns, per sample of its batch."""


def in_parts(model: ir.Model, names: Iterable[str]) -> list[list[str]]:
    """`names` in parts whose values are at most `AT_ONCE_BYTES` together, as far as shapes tell; at least one part."""
    shapes = {value.name: value.shape for node in model.graph for value in node.outputs}
    parts: list[list[str]] = [[]]
    filled = 0
    for name in names:
        dims = shapes.get(name) or ()
        size = 4 * int(np.prod([d if isinstance(d, int) else 1 for d in dims]))
        if parts[-1] and filled + size > AT_ONCE_BYTES:
            parts.append([])
            filled = 0
        parts[-1].append(name)
        filled += size
    return parts
