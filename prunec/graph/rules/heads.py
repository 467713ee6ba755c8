"""Products of heads that keep every head's channels apart.

Cutting has to take the same positions of every head, for the reshape that made the heads must stay one. Reordering
need not: in Y[h] = A[h] V[h] the columns of each V[h] may change places by themselves, and in S[h] = Q[h] K[h]ᵀ the
contracted axes of each pair. The heads themselves stay where they are.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunec.graph.flow import Flow, Part, RawAxes

Sides = tuple[tuple[int, int], tuple[int, int]]


def couple_heads(node: ir.Node, flow: Flow, operands: tuple[int, int], sides: Sides) -> bool:
    """Couple a product of activations, heads apart; False, and nothing done, where its operands are not such heads.

    `sides`: (free, contracted) axis of both operands, from the right.
    """
    raws = [flow.raw(node.inputs[i]) for i in operands]
    n = len(raws[0])
    if len(raws[1]) != n:
        return False
    tracked = [{axis - n: entry for axis, entry in enumerate(raw) if entry is not None} for raw in raws]
    result: RawAxes = [None] * n
    contracted = [_heads(own, side[1]) for own, side in zip(tracked, sides, strict=True)]
    if all(found is not None and len(own) == 2 for found, own in zip(contracted, tracked, strict=True)):
        (left_axis, left), (right_axis, right) = (found for found in contracted if found is not None)
        if left_axis != right_axis or left.shape != right.shape:
            return False
        flow.unite(left, right)
        flow.set(node.outputs[0], result)
        return True
    for side, place in ((0, -2), (1, -1)):
        found, other = _heads(tracked[side], sides[side][0]), tracked[1 - side]
        if found is None or len(tracked[side]) != 2 or any(axis != found[0] for axis in other):
            continue
        for axis, ids in zip(range(n), flow.of(node.inputs[operands[1 - side]]), strict=True):
            flow.pin(ids if axis - n == found[0] else None, "PC103", node, "multiplies heads that stay in their order")
        result[found[0]], result[place] = tracked[side][found[0]], tracked[side][sides[side][0]]
        flow.set(node.outputs[0], result)
        return True
    return False


def _heads(tracked: dict[int, np.ndarray | Part], axis: int) -> tuple[int, np.ndarray] | None:
    """The batch axis that forms a joint block with `axis`, and the block's ids [heads, width]."""
    entry = tracked.get(axis)
    if not isinstance(entry, Part) or entry.ids.ndim != 2:
        return None
    for other, part in tracked.items():
        if other < -2 and isinstance(part, Part) and part.ids is entry.ids:
            return other, np.moveaxis(entry.ids, part.dim, 0)
    return None
