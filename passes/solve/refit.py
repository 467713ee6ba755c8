"""Exact weights for a fixed mask: w_S = T_S + (A_SS)⁻¹ (T A − …)_S, row by row.

    min over w with support S of (w − T) A (w − T)ᵀ:   A_SS w_Sᵀ = (T A)_Sᵀ

Rows that share a mask (the outputs of a block) share a factorisation, and systems of equal size are solved together.
Where H is known by its rows, A = YᵀY + λ, the weights outside the mask are a right-hand side in those rows:

    w_S = T_S + u Y_S (Y_SᵀY_S + λ)⁻¹ = T_S + u (Y_S Y_Sᵀ + λ)⁻¹ Y_S,    u = T_S̄ Y_S̄ᵀ

of which the smaller matrix is factorised. Where that is too much work all rows run one preconditioned conjugate
gradient side by side, whose steps are products of the whole weight with A.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from prunec.passes.solve.hessian import Array, Double, MatrixHessian, RowHessian, damped_inverse, row_products
from prunec.passes.solve.quadratic import Quadratic
from prunec.patterns.base import Mask

DIRECT_UP_TO, DIRECT_WORK = 512, 3e8
"""Unknowns of one system, and systems · unknowns³ of a layer, that are factorised."""
CHUNK_BYTES = 1 << 28
"""Memory for the systems that are solved together."""
ITERATIONS = 120
TOLERANCE, NARROW_TOLERANCE = 1e-5, 3e-4
"""Conjugate gradient: residual relative to the right-hand side, per row; the second leaves errors alike to 1e-4."""
NARROW_FROM = 256
"""Columns from which conjugate gradients run in single precision."""
USUAL_ITERATIONS = 40
"""Of conjugate gradients, at least, where λ is small: what a factorisation is compared with."""


def refit(q: Quadratic, mask: Mask, rows: int = 1, start: Array | None = None) -> Double:
    """Scaled weights [m, n] with +0.0 outside `mask`; `rows` consecutive outputs are known to share their mask."""
    widest = int(mask.sum(axis=1).max(initial=0))
    work = len(mask) / rows * widest**3
    hessian = q.problem.fit.hessian
    if isinstance(hessian, MatrixHessian) and widest <= DIRECT_UP_TO and work <= DIRECT_WORK:
        return _direct(q, mask, rows)
    if isinstance(hessian, RowHessian) and _is_worth_factors(mask, rows, widest, len(hessian.rows)):
        return _through_rows(q, hessian, mask, rows)
    return _conjugate_gradient(q, mask, start)


def _is_worth_factors(mask: Mask, rows: int, widest: int, count: int) -> bool:
    """Whether products of rows in float64 and their factors are less work than conjugate gradients in float32."""
    small, large = min(widest, count), max(widest, count)
    factors = 2 * len(mask) / rows * small**2 * (large + small)
    return factors < USUAL_ITERATIONS * 4 * mask.size * count


def _through_rows(q: Quadratic, hessian: RowHessian, mask: Mask, rows: int) -> Double:
    kind = np.dtype(np.float32)
    scaled = hessian.rows_scaled(q.scale, kind)
    found = np.where(mask, q.target, 0.0)
    lost = np.where(mask, 0.0, q.target).astype(kind) @ scaled.T
    for first in range(0, len(mask), rows):
        kept, block = np.flatnonzero(mask[first]), slice(first, first + rows)
        own = np.ascontiguousarray(scaled[:, kept])
        if len(kept) <= len(own):
            inside = damped_inverse(row_products(own.T), q.damping).astype(kind)
            found[block, kept] += (lost[block] @ own) @ inside
        else:
            inside = damped_inverse(row_products(own), q.damping).astype(kind)
            found[block, kept] += (lost[block] @ inside) @ own
    return found


def _direct(q: Quadratic, mask: Mask, rows: int) -> Double:
    matrix = q.matrix()
    right = q.target @ matrix
    m, n = mask.shape
    found = np.zeros((m, n))
    first = mask[::rows]
    sizes = first.sum(axis=1)
    for systems in _chunks(sizes):
        k = int(sizes[systems[-1]])
        if not k:
            continue
        # pad smaller supports with a unit equation, so that the chunk is one array
        index = np.argsort(~first[systems], axis=1, kind="stable")[:, :k]
        real = np.arange(k) < sizes[systems][:, None]
        system = matrix[index[:, :, None], index[:, None, :]]
        system *= real[:, :, None] & real[:, None, :]
        diagonal = np.arange(k)
        system[:, diagonal, diagonal] += ~real
        outputs = systems[:, None] * rows + np.arange(rows)
        values = np.take_along_axis(right[outputs], index[:, None, :], axis=2) * real[:, None, :]
        solved = np.linalg.solve(system, values.transpose(0, 2, 1)).transpose(0, 2, 1)
        part = np.zeros((len(systems), rows, n))
        np.put_along_axis(part, np.broadcast_to(index[:, None, :], solved.shape), solved * real[:, None, :], axis=2)
        found[outputs] = part
    return np.where(mask, found, 0.0)


def _chunks(sizes: np.ndarray) -> Iterator[np.ndarray]:
    """Indices of systems, similar sizes together, as many as memory allows."""
    order = np.argsort(sizes, kind="stable")
    begin = 0
    for end in range(1, len(order) + 1):
        full = (end - begin + 1) * int(sizes[order[min(end, len(order) - 1)]]) ** 2 * 8 > CHUNK_BYTES
        if full or end == len(order):
            yield order[begin:end]
            begin = end


def _conjugate_gradient(q: Quadratic, mask: Mask, start: Array | None) -> Double:
    kind = np.dtype(np.float32 if mask.shape[1] >= NARROW_FROM else np.float64)
    apply = q.operator(kind)
    target = q.target.astype(kind)
    keep = mask.astype(kind)
    inverse = (1 / q.diagonal).astype(kind)
    x = (target if start is None else start.astype(kind)) * keep
    right = apply(target) * keep
    limit = (TOLERANCE if kind == np.float64 else NARROW_TOLERANCE) * np.linalg.norm(right, axis=1)
    r = right - apply(x) * keep
    z = r * inverse
    p = z.copy()
    rz = np.einsum("mn,mn->m", r, z)
    for _ in range(ITERATIONS):
        if (np.linalg.norm(r, axis=1) <= limit).all():
            break
        ap = apply(p) * keep
        curvature = np.einsum("mn,mn->m", p, ap)
        step = np.where(curvature > 0, rz / np.where(curvature > 0, curvature, 1), 0).astype(kind)[:, None]
        x += step * p
        r -= step * ap
        z = r * inverse
        new = np.einsum("mn,mn->m", r, z)
        p = z + np.where(rz > 0, new / np.where(rz > 0, rz, 1), 0).astype(kind)[:, None] * p
        rz = new
    return np.where(mask, x, 0.0).astype(np.float64)
