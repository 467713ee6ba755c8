"""H = E[x xᵀ] as what solvers need of it: its diagonal, products W·H, and inverses of H + λ in scaled coordinates.

`MatrixHessian` holds H itself. `RowHessian` holds the rows X [R, n] with H = XᵀX/R: for layers with so many inputs that
H would not fit (65 536 inputs a filter would be 34 GB), at the price that H has rank R at most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.linalg import lapack

Double = npt.NDArray[np.float64]
Array = npt.NDArray[np.floating]
Linear = Callable[[Array], Array]
"""R ↦ R·M for R [m, n] and a fixed M [n, n], in the type of R."""
MIRRORED = 128
"""Rows of a triangle that are mirrored at once."""
CHUNK_BYTES = 1 << 27
"""Of rows that are made wider for a product."""


class Hessian(Protocol):
    def diagonal(self) -> Double: ...

    def apply(self, weight: Double) -> Double:
        """W·H for W [m, n]."""
        ...

    def inverse(self, scale: Double, damping: float, kind: npt.DTypeLike) -> Linear:
        """R ↦ R (S⁻¹ H S⁻¹ + λ)⁻¹ with S = diag(scale), for R of that type."""
        ...

    def solve(self, right: Double, scale: Double, damping: float) -> Double:
        """R (S⁻¹ H S⁻¹ + λ)⁻¹, once."""
        ...

    def operator(self, scale: Double, kind: npt.DTypeLike) -> Linear:
        """R ↦ R S⁻¹ H S⁻¹, for R of that type."""
        ...

    def permuted(self, columns: npt.NDArray[np.int64]) -> Hessian:
        """Of the inputs in another order."""
        ...


@dataclass(frozen=True)
class Spectrum:
    """Q diag(values) Qᵀ with Q [n, n] orthonormal: all functions of H + λ·1 for every λ at the price of products."""

    values: Double
    vectors: Double

    def solve(self, right: Double, damping: float) -> Double:
        """R (H + λ)⁻¹ for R [m, n]."""
        found: Double = ((right @ self.vectors) / (self.values + damping)) @ self.vectors.T
        return found


class MatrixHessian:
    """H [n, n] in float64. The scaled matrix of the last scale is kept in single precision."""

    def __init__(self, matrix: Double) -> None:
        self.matrix = matrix
        self._narrow: tuple[Double, Array] | None = None

    def diagonal(self) -> Double:
        diagonal: Double = np.diagonal(self.matrix).copy()
        return diagonal

    def apply(self, weight: Double) -> Double:
        found: Double = weight @ self.matrix
        return found

    def scaled(self, scale: Double, kind: npt.DTypeLike = np.float64) -> Array:
        """S⁻¹ H S⁻¹ [n, n]; not to be written to."""
        if np.dtype(kind) == np.float64:
            found: Double = self.matrix / np.outer(scale, scale)
            return found
        if self._narrow is None or not np.array_equal(self._narrow[0], scale):
            self._narrow = scale, (self.matrix / np.outer(scale, scale)).astype(np.float32)
        return self._narrow[1]

    def inverse_matrix(self, scale: Double, damping: float, kind: npt.DTypeLike = np.float64) -> Array:
        """(S⁻¹ H S⁻¹ + λ)⁻¹ [n, n]: by Cholesky, n³ operations, a tenth of the time of a spectrum.

        Where rounding has left H with an eigenvalue below −λ, from its spectrum with those raised to 0.
        """
        found = _inverted(*self._factor(scale, damping, kind))
        if found is None:
            known = self.spectrum(scale)
            found = ((known.vectors / (known.values + damping)) @ known.vectors.T).astype(kind)
        return found

    def _factor(self, scale: Double, damping: float, kind: npt.DTypeLike) -> tuple[Array, int]:
        """Cholesky's lower factor, in Fortran's order, and whether there was none."""
        damped = np.array(self.scaled(scale, kind))
        damped.flat[:: len(damped) + 1] += damping
        return _factorised(damped)

    def inverse(self, scale: Double, damping: float, kind: npt.DTypeLike) -> Linear:
        matrix = self.inverse_matrix(scale, damping, kind)
        return lambda right: right @ matrix

    def solve(self, right: Double, scale: Double, damping: float) -> Double:
        lower, failed = self._factor(scale, damping, np.float64)
        found: Double = right
        if not failed:
            found, failed = lapack.dpotrs(lower, right.T, lower=1)
        if failed or not np.isfinite(found).all():
            return self.spectrum(scale).solve(right, damping)
        turned: Double = found.T
        return turned

    def operator(self, scale: Double, kind: npt.DTypeLike) -> Linear:
        matrix = self.scaled(scale, kind)
        return lambda right: right @ matrix

    def spectrum(self, scale: Double) -> Spectrum:
        """Of S⁻¹ H S⁻¹, with no value below 0."""
        scaled = self.scaled(scale)
        values, vectors = np.linalg.eigh((scaled + scaled.T) / 2)
        return Spectrum(np.maximum(values, 0.0), vectors)

    def permuted(self, columns: npt.NDArray[np.int64]) -> MatrixHessian:
        return MatrixHessian(self.matrix[np.ix_(columns, columns)])


class RowHessian:
    """H = XᵀX/R from its rows X [R, n], in their own type; R is less than n.

    Inverses go through Y = X S⁻¹/√R and its products with itself, YYᵀ [R, R] (Woodbury):
    (YᵀY + λ)⁻¹ = (1 − Yᵀ (YYᵀ + λ)⁻¹ Y)/λ.
    """

    def __init__(self, rows: Array) -> None:
        self.rows = rows
        self._products: tuple[Double, Double] | None = None

    def diagonal(self) -> Double:
        squares: Double = np.einsum("rn,rn->n", self.rows, self.rows, dtype=np.float64) / len(self.rows)
        return squares

    def apply(self, weight: Double) -> Double:
        kind = self.rows.dtype
        found: Double = ((weight.astype(kind) @ self.rows.T) @ self.rows).astype(np.float64) / len(self.rows)
        return found

    def products(self, scale: Double) -> Double:
        """YYᵀ [R, R]; not to be written to. That of the last scale is kept."""
        if self._products is None or not np.array_equal(self._products[0], scale):
            self._products = scale, row_products(self.rows, 1 / (scale * np.sqrt(len(self.rows))))
        return self._products[1]

    def inverse(self, scale: Double, damping: float, kind: npt.DTypeLike) -> Linear:
        inside = damped_inverse(self.products(scale), damping).astype(kind)
        rows = self.rows_scaled(scale, kind)
        return lambda right: (right - ((right @ rows.T) @ inside) @ rows) / right.dtype.type(damping)

    def solve(self, right: Double, scale: Double, damping: float) -> Double:
        return self.inverse(scale, damping, np.float64)(right).astype(np.float64)

    def operator(self, scale: Double, kind: npt.DTypeLike) -> Linear:
        rows = self.rows_scaled(scale, kind)
        return lambda right: (right @ rows.T) @ rows

    def rows_scaled(self, scale: Double, kind: npt.DTypeLike = np.float64) -> Array:
        scaled: Array = self.rows.astype(kind) / (scale * np.sqrt(len(self.rows))).astype(kind)
        return scaled

    def permuted(self, columns: npt.NDArray[np.int64]) -> RowHessian:
        return RowHessian(self.rows[:, columns])


def row_products(rows: Array, factors: Double | None = None) -> Double:
    """YYᵀ [R, R] in float64 for rows [R, n] and factors of their columns, as many columns at a time as stay small."""
    count, columns = rows.shape
    wide = max(1, CHUNK_BYTES // (8 * count))
    found = np.zeros((count, count))
    for first in range(0, columns, wide):
        part = slice(first, first + wide)
        own = rows[:, part].astype(np.float64)
        if factors is not None:
            own *= factors[part]
        found += own @ own.T
    return found


def damped_inverse(matrix: Double, damping: float) -> Double:
    """(M + λ)⁻¹ [n, n] of a symmetric M without negative eigenvalues but for rounding, in float64."""
    damped = np.array(matrix)
    damped.flat[:: len(damped) + 1] += damping
    inverse = _inverted(*_factorised(damped))
    if inverse is not None:
        return inverse.astype(np.float64, copy=False)
    values, vectors = np.linalg.eigh(matrix)
    clamped: Double = (vectors / (np.maximum(values, 0.0) + damping)) @ vectors.T
    return clamped


def _factorised(damped: Array) -> tuple[Array, int]:
    """Cholesky's lower factor in the place of a symmetric matrix, in Fortran's order, and whether there is none."""
    (factorise,) = lapack.get_lapack_funcs(("potrf",), (damped,))
    lower, failed = factorise(damped.T, lower=1, overwrite_a=1)
    return lower, failed


def _inverted(lower: Array, failed: int) -> Array | None:
    """The inverse of the matrix with that factor, in its place; None where there is none."""
    if not failed:
        (invert,) = lapack.get_lapack_funcs(("potri",), (lower,))
        lower, failed = invert(lower, lower=1, overwrite_c=1)
    if failed or not np.isfinite(lower).all():
        return None
    upper: Array = lower.T  # C-contiguous: the triangle that was computed is its upper one
    for first in range(0, len(upper), MIRRORED):
        rows = slice(first, first + MIRRORED)
        upper[rows, :first] = upper[:first, rows].T
        own = upper[rows, rows]
        own[:] = np.triu(own) + np.triu(own, 1).T
    return upper
