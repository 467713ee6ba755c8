"""SparseGPT (arXiv 2301.00774): one sweep over the columns, each removal paid back by the columns to its right.

U = upper Cholesky factor of A⁻¹. Column blocks of about 128; the mask of a block comes from w²/U_jj² on the *already
updated* weights; column i: e = (w − mask·w)/U_ii, W[:, i:] −= e·U[i, i:]. An N:M group is decided when its first column
is reached. Exact counts, ties by position (the published code removes all ties).

With a grid the same sweep rounds as well (GPTQ, arXiv 2210.17323; OBQ, arXiv 2208.11580): what stays of a column is its
nearest value on the grid, e = (w − that)/U_ii, and so columns to the right pay back removals and roundings alike.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import lapack

from prunec.diagnostics import PrunecError
from prunec.passes.solve.grid import WeightGrid
from prunec.passes.solve.hessian import Double, MatrixHessian
from prunec.passes.solve.quadratic import Quadratic
from prunec.patterns.base import Mask, Pattern
from prunec.patterns.block import Kernel

BLOCK = 128
MAX_DAMPING = 1e3


def refusal(q: Quadratic, pattern: Pattern) -> str | None:
    """Why the sweep cannot be done here, or None."""
    if isinstance(pattern, Kernel) and q.layout.positions > 1:
        return "SparseGPT decides column by column; a whole kernel's columns are not side by side"
    if not isinstance(q.problem.fit.hessian, MatrixHessian):
        return "SparseGPT needs H as a matrix, and the layer has too many inputs for one"
    return None


def sparsegpt(
    q: Quadratic, pattern: Pattern, level: float, grid: WeightGrid | None = None
) -> tuple[Double, Mask, tuple[str, ...]]:
    """Updated scaled weights [m, n] from T, their mask, and notes (damping that had to be raised)."""
    assert refusal(q, pattern) is None
    width = pattern.width
    sweep = max(BLOCK // width, 1) * width
    step = width if pattern.fixed_level is not None else sweep

    def decide(begin: int, saliency: Double) -> Mask:
        return pattern.project(saliency, q.layout.part(saliency.shape[1]), level)

    return _sweep(q, decide, sweep, step, grid)


def rounded_sweep(q: Quadratic, mask: Mask, grid: WeightGrid) -> tuple[Double, tuple[str, ...]]:
    """The same sweep where the mask is known and only the rounding is paid back."""
    weight, _, notes = _sweep(q, lambda begin, own: mask[:, begin : begin + own.shape[1]], BLOCK, BLOCK, grid)
    return weight, notes


def _sweep(
    q: Quadratic, decide: Callable[[int, Double], Mask], sweep: int, step: int, grid: WeightGrid | None
) -> tuple[Double, Mask, tuple[str, ...]]:
    """`decide` is asked every `step` columns for the mask of the next ones, and shown w²/U_jj² of them."""
    upper, notes = inverse_factor(q.matrix(), q.damping)
    weight = q.target.copy()
    n = weight.shape[1]
    mask = np.zeros(weight.shape, bool)
    for begin in range(0, n, sweep):
        end = min(begin + sweep, n)
        errors = np.zeros((len(weight), end - begin))
        for i in range(begin, end):
            if (i - begin) % step == 0:
                part = slice(i, min(i + step, end))
                mask[:, part] = decide(i, np.square(weight[:, part] / np.diagonal(upper)[part]))
            kept = weight[:, i] if grid is None else grid.nearest(weight[:, i] / q.scale[i]) * q.scale[i]
            kept = np.where(mask[:, i], kept, 0.0)
            error = (weight[:, i] - kept) / upper[i, i]
            weight[:, i + 1 : end] -= np.outer(error, upper[i, i + 1 : end])
            weight[:, i] = kept
            errors[:, i - begin] = error
        weight[:, end:] -= errors @ upper[begin:end, end:]
    return np.where(mask, weight, 0.0), mask, notes


def inverse_factor(matrix: Double, damping: float) -> tuple[Double, tuple[str, ...]]:
    """U with A⁻¹ = Uᵀ U, upper; more damping is added, and said, until A can be factorised."""
    added = 0.0
    while added <= MAX_DAMPING:
        damped = matrix.copy()
        damped[np.diag_indices_from(damped)] += added
        lower, failed = lapack.dpotrf(damped, lower=1)
        if not failed:
            inverse, failed = lapack.dpotri(lower, lower=1)
        if not failed and np.isfinite(inverse).all():
            full = np.tril(inverse) + np.tril(inverse, -1).T
            upper, failed = lapack.dpotrf(full, lower=0)
            if not failed:
                notes = () if not added else (f"damping {damping:g} failed to factorise, {damping + added:g} was used",)
                return np.triu(upper), notes
        added = 10 * max(added, damping, 1e-6) - damping
    raise PrunecError("PC332", "the inverse Hessian cannot be factorised", hint="look for extreme calibration values")
