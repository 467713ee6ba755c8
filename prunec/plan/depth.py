"""Which blocks go: greedily the one whose removal changes the outputs least for what it saves, until the budget is met.

    gain(b) = (error(S ∪ {b}) − error(S)) / min(saved(b), what is still to be saved)

error is measured on calibration data with the blocks S that went before (`statistics.block_errors`), saved counts what
no output needs any more. Old gains order the candidates; the first one is measured again until it stays the first
(lazy greedy: a block rarely becomes cheaper because another one has gone).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import onnx_ir as ir

from prunec.graph.branches import Block, live_nodes
from prunec.graph.cost import FLOAT_TYPES, node_macs
from prunec.graph.shapes import dims, is_constant
from prunec.plan.budget import Budget
from prunec.plan.cost_model import Cost

Errors = Callable[[Sequence[Block]], float]


def block_cost(model: ir.Model, removed: Sequence[Block]) -> Cost:
    """What the model costs without these blocks. `weights` are the parameters of matrices and kernels."""
    nodes = live_nodes(model, removed)
    read = {value for node in nodes for value in node.inputs if value is not None and is_constant(value)}
    sizes = {value: _size(value) for value in read if value.dtype in FLOAT_TYPES}
    weights = sum(size for value, size in sizes.items() if len(dims(value) or ()) >= 2)
    return Cost(sum(sizes.values()), sum(node_macs(node) for node in nodes), weights)


def _size(value: ir.Value) -> int:
    return math.prod(d for d in dims(value) or () if isinstance(d, int))


def choose_blocks(
    model: ir.Model, blocks: Sequence[Block], errors: Errors, budget: Budget, dense: Cost
) -> tuple[list[tuple[Block, float]], bool]:
    """Blocks to remove, each with error({b}) alone, in the order they were chosen; and whether the budget is met.

    `dense` is the cost that the budget's share is taken of.
    """
    alone = {block: errors([block]) for block in blocks}
    rise = dict(alone)
    chosen: list[Block] = []
    error, left = 0.0, budget.remaining(block_cost(model, []), dense)
    while left > budget.limit() + 1e-12:
        after = {b: budget.remaining(block_cost(model, [*chosen, b]), dense) for b in blocks if b not in chosen}
        needed = left - budget.limit()
        saved = {b: min(left - share, needed) for b, share in after.items() if share < left - 1e-12}
        candidates = [b for b in saved if math.isfinite(rise[b])]
        if not candidates:
            return [(block, alone[block]) for block in chosen], False
        fresh = set(candidates) if not chosen else set()
        while (best := min(candidates, key=lambda b: rise[b] / saved[b])) not in fresh:
            rise[best] = max(errors([*chosen, best]) - error, 0.0)
            fresh.add(best)
        error, left = error + rise[best], after[best]
        chosen.append(best)
    return [(block, alone[block]) for block in chosen], True
