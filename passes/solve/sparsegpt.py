"""SparseGPT (arXiv 2301.00774): one sweep over the columns, each removal paid back by the columns to its right.

U = upper Cholesky factor of A⁻¹. Column blocks of about 128; the mask of a block comes from w²/U_jj² on the *already
updated* weights; column i: e = (w − mask·w)/U_ii, W[:, i:] −= e·U[i, i:]. An N:M group is decided when its first column
is reached. Exact counts, ties by position (the published code removes all ties).
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import lapack

from prunec.diagnostics import PrunecError
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


def sparsegpt(q: Quadratic, pattern: Pattern, level: float) -> tuple[Double, Mask, tuple[str, ...]]:
    """Updated scaled weights [m, n] from T, their mask, and notes (damping that had to be raised)."""
    assert refusal(q, pattern) is None
    upper, notes = inverse_factor(q.matrix(), q.damping)
    weight = q.target.copy()
    n = weight.shape[1]
    mask = np.zeros(weight.shape, bool)
    width = pattern.width
    sweep = max(BLOCK // width, 1) * width
    step = width if pattern.fixed_level is not None else sweep
    for begin in range(0, n, sweep):
        end = min(begin + sweep, n)
        errors = np.zeros((len(weight), end - begin))
        for i in range(begin, end):
            if (i - begin) % step == 0:
                part = slice(i, min(i + step, end))
                saliency = np.square(weight[:, part] / np.diagonal(upper)[part])
                mask[:, part] = pattern.project(saliency, q.layout.part(saliency.shape[1]), level)
            error = np.where(mask[:, i], 0.0, weight[:, i]) / upper[i, i]
            weight[:, i:end] -= np.outer(error, upper[i, i:end])
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
