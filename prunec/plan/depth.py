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
from prunec.graph.shapes import is_constant
from prunec.plan.budget import Budget
from prunec.plan.cost_model import Cost

Errors = Callable[[Sequence[Block]], float]


def block_cost(model: ir.Model, removed: Sequence[Block]) -> Cost:
    """What the model costs without these blocks. `weights` are the parameters of matrices and kernels."""
    nodes = live_nodes(model, removed)
    values = {value for node in nodes for value in node.inputs if value is not None and is_constant(value)}
    sizes = {value: math.prod(int(d) for d in value.shape or ()) for value in values if value.dtype in FLOAT_TYPES}  # type: ignore[arg-type]
    weights = sum(size for value, size in sizes.items() if len(value.shape or ()) >= 2)
    return Cost(sum(sizes.values()), sum(node_macs(node) for node in nodes), weights)


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
        shares = {b: budget.remaining(block_cost(model, [*chosen, b]), dense) for b in blocks if b not in chosen}
        candidates = [b for b, share in shares.items() if share < left - 1e-12 and math.isfinite(rise[b])]
        if not candidates:
            return [(block, alone[block]) for block in chosen], False
        needed = left - budget.limit()
        measured: dict[Block, float] = {}

        def gain(
            block: Block, left: float = left, needed: float = needed, shares: dict[Block, float] = shares
        ) -> float:
            return rise[block] / min(left - shares[block], needed)

        while True:
            best = min(candidates, key=gain)
            if best in measured or (not chosen):
                break
            measured[best] = errors([*chosen, best])
            rise[best] = max(measured[best] - error, 0.0)
        error = measured.get(best, alone[best])
        left = shares[best]
        chosen.append(best)
    return [(block, alone[block]) for block in chosen], True
