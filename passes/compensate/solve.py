"""Ridge regression towards given weights, in centred moments, for g independent problems at once.

    W' = argmin E‖t − W z‖² + λ‖(W − W₀) D^½‖²,  D = diag(H):  W' = W₀ + (G − W₀H)(H + λD)⁻¹

with H = Cov(z) [g, n, n] and G = Cov(t, z) [g, m, n]. Inputs that never vary keep their weights W₀. Where n is larger
than the number of rows R, the same minimiser comes from an R×R system (`RowSystem`).
A factorisation that fails is tried again with ten times the damping; the damping used is returned, never hidden.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve

from prunec.diagnostics import PrunecError
from prunec.triangles import mirror

Double = npt.NDArray[np.float64]

BATCHED_BELOW = 64
"""Systems up to this size are solved together by numpy; larger ones one at a time by LAPACK's Cholesky."""
CONSTANT_BELOW = 1e-8
"""A variable is constant when its variance is below this share of the mean variance."""
MAX_DAMPING = 1e4
COLUMN_BLOCK = 4096
ROW_BLOCK = 256


def scales(diagonal: Double) -> Double:
    """D [g, n]: variances, with those of constants raised to the mean of the group (1 where all are constant)."""
    mean = diagonal.mean(axis=-1, keepdims=True)
    mean = np.where(mean > 0, mean, 1.0)
    found: Double = np.where(diagonal > CONSTANT_BELOW * mean, diagonal, mean)
    return found


def solve(
    covariance: Double, residual: Double, damping: float, kind: npt.DTypeLike = np.float64
) -> tuple[npt.NDArray[np.floating], float]:
    """W' − W₀ [g, m, n] of type `kind` from H and G − W₀H, and the damping it took."""
    n = covariance.shape[-1]
    ridge = scales(np.diagonal(covariance, axis1=1, axis2=2))
    solver = _batched if n <= BATCHED_BELOW else _one_by_one
    for used in _escalating(damping):
        try:
            change = solver(covariance, used * ridge, residual, kind)
        except np.linalg.LinAlgError:
            continue
        if np.isfinite(change).all():
            return change, used
    raise unsolvable()


class RowSystem:
    """The same minimiser for one problem with fewer rows than unknowns, from an R×R system.

    W' = W₀ + Eᵀ(Z D⁻¹ Zᵀ + λR)⁻¹ Z D⁻¹, with centred rows Z [R, n] and centred residuals E = T − Z W₀ᵀ [R, m].
    Z is read in blocks of columns and never copied as a whole.
    """

    def __init__(self, z: npt.NDArray[np.floating], residual: Double) -> None:
        self.z, self.residual = z, residual
        rows, unknowns = z.shape
        squares = [np.einsum("rn,rn->n", z[:, c], z[:, c], dtype=np.float64) for c in _columns(unknowns)]
        self.ridge = scales(np.concatenate(squares)[None] / rows)[0].astype(z.dtype)
        kernel = np.zeros((rows, rows))
        for columns in _columns(unknowns):
            block = z[:, columns]
            kernel += (block / self.ridge[columns]) @ block.T
        self.kernel = kernel + kernel.T
        self.kernel /= 2

    def change(self, damping: float) -> tuple[npt.NDArray[np.floating], float]:
        """W' − W₀ [m, n], in the type of the rows, and the damping it took."""
        rows, unknowns = self.z.shape
        for used in _escalating(damping):
            damped = np.array(self.kernel, order="F")  # LAPACK's order, or it would be copied again
            damped[np.diag_indices(rows)] += used * rows
            try:
                factor = cho_factor(damped, lower=True, overwrite_a=True)
            except np.linalg.LinAlgError:
                continue
            weights = cho_solve(factor, self.residual).T.astype(self.z.dtype)
            found = np.empty((len(weights), unknowns), self.z.dtype)
            for columns in _columns(unknowns):
                np.divide(weights @ self.z[:, columns], self.ridge[columns], out=found[:, columns])
            return found, used
        raise unsolvable()


def _columns(count: int) -> Iterator[slice]:
    return (slice(first, first + COLUMN_BLOCK) for first in range(0, count, COLUMN_BLOCK))


def unsolvable() -> PrunecError:
    return PrunecError("PC332", "the least-squares system cannot be solved", hint="look for extreme calibration values")


def _escalating(damping: float) -> Iterator[float]:
    while damping <= MAX_DAMPING:
        yield damping
        damping = damping * 10 if damping else 1e-12


def _batched(covariance: Double, ridge: Double, right: Double, kind: npt.DTypeLike) -> npt.NDArray[np.floating]:
    damped = covariance.copy()
    n = damped.shape[-1]
    damped[:, np.arange(n), np.arange(n)] += ridge
    np.linalg.cholesky(damped)  # raises where the system is not positive definite; LU would not
    found: npt.NDArray[np.floating] = np.linalg.solve(damped, right.transpose(0, 2, 1)).transpose(0, 2, 1)
    return found.astype(kind, copy=False)


def _one_by_one(covariance: Double, ridge: Double, right: Double, kind: npt.DTypeLike) -> npt.NDArray[np.floating]:
    """Each is factored in one of its own triangles, for another copy is as large as all the rest; it is put back."""
    found: npt.NDArray[np.floating] = np.empty(right.shape, kind)
    for i, matrix in enumerate(covariance):
        diagonal = np.diagonal(matrix).copy()
        try:
            np.fill_diagonal(matrix, diagonal + ridge[i])
            factor = cho_factor(matrix.T, lower=True, overwrite_a=True, check_finite=False)
            for first in range(0, right.shape[1], ROW_BLOCK):
                rows = slice(first, first + ROW_BLOCK)
                found[i, rows] = cho_solve(factor, right[i, rows].T, check_finite=False).T
        finally:
            np.fill_diagonal(matrix, diagonal)
            mirror(matrix)
    return found
