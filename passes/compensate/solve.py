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

Double = npt.NDArray[np.float64]

BATCHED_BELOW = 64
"""Systems up to this size are solved together by numpy; larger ones one at a time by LAPACK's Cholesky."""
CONSTANT_BELOW = 1e-8
"""A variable is constant when its variance is below this share of the mean variance."""
MAX_DAMPING = 1e4


def scales(diagonal: Double) -> Double:
    """D [g, n]: variances, with those of constants raised to the mean of the group (1 where all are constant)."""
    mean = diagonal.mean(axis=-1, keepdims=True)
    mean = np.where(mean > 0, mean, 1.0)
    found: Double = np.where(diagonal > CONSTANT_BELOW * mean, diagonal, mean)
    return found


def solve(start: Double, covariance: Double, cross: Double, damping: float) -> tuple[Double, float]:
    """W' [g, m, n] from W₀, H and G, and the damping it took."""
    n = covariance.shape[-1]
    ridge = scales(np.diagonal(covariance, axis1=1, axis2=2))
    residual = cross - start @ covariance
    for used in _escalating(damping):
        damped = covariance.copy()
        damped[:, np.arange(n), np.arange(n)] += used * ridge
        try:
            change = _batched(damped, residual) if n <= BATCHED_BELOW else _one_by_one(damped, residual)
        except np.linalg.LinAlgError:
            continue
        if np.isfinite(change).all():
            return start + change, used
    raise unsolvable()


class RowSystem:
    """The same minimiser for one problem with fewer rows than unknowns, from an R×R system.

    W' = W₀ + Eᵀ(Z D⁻¹ Zᵀ + λR)⁻¹ Z D⁻¹, with centred rows Z [R, n] and centred residuals E = T − Z W₀ᵀ [R, m].
    """

    def __init__(self, z: npt.NDArray[np.floating], residual: Double) -> None:
        ridge = scales(np.square(z, dtype=np.float64).mean(axis=0)[None])[0]
        self.scaled = z / ridge.astype(z.dtype)
        kernel = (self.scaled @ z.T).astype(np.float64)
        self.kernel = (kernel + kernel.T) / 2
        self.residual = residual

    def change(self, damping: float) -> tuple[Double, float]:
        """W' − W₀ [m, n] and the damping it took."""
        rows = len(self.kernel)
        for used in _escalating(damping):
            try:
                factor = cho_factor(self.kernel + used * rows * np.eye(rows), lower=True, overwrite_a=True)
            except np.linalg.LinAlgError:
                continue
            weights = cho_solve(factor, self.residual).T.astype(self.scaled.dtype)
            return (weights @ self.scaled).astype(np.float64), used
        raise unsolvable()


def unsolvable() -> PrunecError:
    return PrunecError("PC332", "the least-squares system cannot be solved", hint="look for extreme calibration values")


def _escalating(damping: float) -> Iterator[float]:
    while damping <= MAX_DAMPING:
        yield damping
        damping = damping * 10 if damping else 1e-12


def _batched(matrix: Double, right: Double) -> Double:
    np.linalg.cholesky(matrix)  # raises where the system is not positive definite; LU would not
    found: Double = np.linalg.solve(matrix, right.transpose(0, 2, 1)).transpose(0, 2, 1)
    return found


def _one_by_one(matrix: Double, right: Double) -> Double:
    found = np.empty_like(right)
    for i in range(len(matrix)):
        factor = cho_factor(matrix[i], lower=True, overwrite_a=True)
        found[i] = cho_solve(factor, right[i].T).T
    return found
