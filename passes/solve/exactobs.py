"""ExactOBS (Optimal Brain Compression, arXiv 2208.11580), for single weights, N:M, and r×c blocks.

Rows that share masks (a block row) share one inverse Hessian. In each, one unit at a time goes: the one with the least
tr(w_B ([A⁻¹]_BB)⁻¹ w_Bᵀ), after which w −= w_B [A⁻¹]_BB⁻¹ A⁻¹_B: and A⁻¹ is downdated. For a level, every row records
what each removal cost; the cheapest removals of the whole layer are then taken, as far as each row went. O(rows·n³).
"""

from __future__ import annotations

import numpy as np

from prunec.passes.solve.hessian import Double, MatrixHessian
from prunec.passes.solve.quadratic import Quadratic
from prunec.patterns.base import Mask, Pattern
from prunec.patterns.block import Block
from prunec.patterns.nm import NM
from prunec.patterns.select import kept_count

MAX_WORK = 1.5e10
"""Most block rows · n³ / c that are worth it: some minutes on one core."""
CHUNK_BYTES = 1 << 27


def refusal(q: Quadratic, pattern: Pattern) -> str | None:
    """Why it is not done here, or None."""
    if not isinstance(pattern, Block | NM):
        return f"ExactOBS is there for N:M and blocks, not for {pattern.name}"
    if not isinstance(q.problem.fit.hessian, MatrixHessian):
        return "ExactOBS needs H as a matrix"
    m, n = q.target.shape
    work = m / pattern.rows * n**3 / (pattern.c if isinstance(pattern, Block) else 1)
    return None if work <= MAX_WORK else f"ExactOBS would take {work:.1g} operations here"


def exactobs(q: Quadratic, pattern: Pattern, level: float) -> Mask:
    """The mask; its exact weights are `refit`'s."""
    assert refusal(q, pattern) is None
    hessian = q.problem.fit.hessian
    assert isinstance(hessian, MatrixHessian)
    inverse = hessian.inverse_matrix(q.scale, q.damping).astype(np.float64, copy=False)
    m, n = q.target.shape
    rows = pattern.rows
    width = pattern.c if isinstance(pattern, Block) else 1
    group = (pattern.m, pattern.n) if isinstance(pattern, NM) else None
    weights = q.target.reshape(m // rows, rows, n)
    chunk = max(1, CHUNK_BYTES // (8 * n * n))
    parts = [_traces(weights[i : i + chunk], inverse, width, group, level) for i in range(0, len(weights), chunk)]
    order = np.concatenate([part[0] for part in parts])
    losses = np.concatenate([part[1] for part in parts])
    units = n // width
    keep = np.ones((len(weights), units), bool)
    if group is not None:
        np.put_along_axis(keep, order, False, axis=1)
    else:
        # a later removal never comes before an earlier one of its row: costs count as their running maximum
        rising = np.maximum.accumulate(losses, axis=1)
        gone = keep.size - kept_count(keep.size, level)
        flat = np.argsort(rising, axis=None, kind="stable")[:gone]
        row = np.unravel_index(flat, rising.shape)[0]
        counts = np.bincount(row, minlength=len(weights))
        for i, count in enumerate(counts):
            keep[i, order[i, :count]] = False
    return np.repeat(np.repeat(keep, rows, axis=0), width, axis=1)


def _traces(
    start: Double, inverse: Double, width: int, group: tuple[int, int] | None, level: float
) -> tuple[np.ndarray, Double]:
    """Units in the order they go, and what each cost, for block rows [b, r, n]."""
    b, _, n = start.shape
    units = n // width
    weight = start.copy()
    inv = np.repeat(inverse[None], b, axis=0)
    alive = np.ones((b, units), bool)
    # rows differ in how much they can spare: follow each further than the level demands on average
    steps = units - 1 if group is None else units // group[0] * (group[0] - group[1])
    steps = min(steps, int(np.ceil(units * (level + 1) / 2))) if group is None else steps
    order = np.zeros((b, steps), np.int64)
    losses = np.zeros((b, steps))
    every, inside = np.arange(b), np.arange(width)
    for step in range(steps):
        scores = _scores(weight, inv, width)
        allowed = alive
        if group is not None:
            left = alive.reshape(b, -1, group[0]).sum(axis=2)
            allowed = alive & np.repeat(left > group[1], group[0], axis=1)
        unit = np.where(allowed, scores, np.inf).argmin(axis=1)
        order[:, step] = unit
        losses[:, step] = scores[every, unit]
        columns = unit[:, None] * width + inside
        rows = inv[every[:, None], columns]  # [b, c, n]
        block = np.take_along_axis(rows, columns[:, None, :], axis=2)
        solved = np.linalg.solve(block, rows) if width > 1 else rows / block
        own = np.take_along_axis(weight, columns[:, None, :], axis=2)
        weight -= own @ solved
        inv -= rows.transpose(0, 2, 1) @ solved
        alive[every, unit] = False
        weight[every[:, None], :, columns] = 0
        inv[every[:, None], columns, columns] = 1.0  # never chosen again; keeps blocks regular
        if width > 1:
            inv[every[:, None, None], columns[:, :, None], columns[:, None, :]] = np.eye(width)
    return order, losses


def _scores(weight: Double, inv: Double, width: int) -> Double:
    """tr(w_B [A⁻¹]_BB⁻¹ w_Bᵀ) of every unit, [b, units]."""
    b, r, n = weight.shape
    if width == 1:
        diagonal = np.einsum("bnn->bn", inv)
        found: Double = np.square(weight).sum(axis=1) / np.maximum(diagonal, 1e-300)
        return found
    units = n // width
    view = inv.reshape(b, units, width, units, width)
    blocks = np.einsum("bucud->bucd", view)
    own = weight.reshape(b, r, units, width).transpose(0, 2, 3, 1)
    solved = np.linalg.solve(blocks, own)
    pooled: Double = np.einsum("bucr,bucr->bu", own, solved)
    return pooled
