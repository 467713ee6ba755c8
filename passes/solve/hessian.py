"""H = E[x xᵀ] as what solvers need of it: its diagonal, products W·H, and inverses of H + λ in scaled coordinates.

`MatrixHessian` holds H itself. `RowHessian` holds the rows X [R, n] with H = XᵀX/R: for layers with so many inputs that
H would not fit (65 536 inputs a filter would be 34 GB), at the price that H has rank R at most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh, lapack

Double = npt.NDArray[np.float64]
Array = npt.NDArray[np.floating]
Linear = Callable[[Array], Array]
"""R ↦ R·M for R [m, n] and a fixed M [n, n], in the type of R."""
MIRRORED = 128
"""Rows of a triangle that are mirrored at once."""


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

    def rows_scaled(self, scale: Double) -> Array:
        """Rows Y with YᵀY = S⁻¹ H S⁻¹."""
        ...

    def permuted(self, columns: npt.NDArray[np.int64]) -> Hessian:
        """Of the inputs in another order."""
        ...


@dataclass(frozen=True)
class Spectrum:
    """Q diag(values) Qᵀ (Q [n, r], orthonormal columns), plus nothing on the rest of the space.

    All functions of H + λ·1 come from it for every λ at the price of products.
    """

    values: Double
    vectors: Double

    @cached_property
    def is_full(self) -> bool:
        return bool(self.vectors.shape[0] == self.vectors.shape[1])

    @cached_property
    def narrow(self) -> Array:
        """Q in single precision, for products that a later exact step corrects."""
        return self.vectors.astype(np.float32)

    def solve(self, right: Array, damping: float) -> Array:
        """R (H + λ)⁻¹ in the type of R [m, n]."""
        q = self.vectors if right.dtype == np.float64 else self.narrow
        inverse = (1 / (self.values + damping)).astype(right.dtype)
        inside = right @ q
        found: Array = (inside * inverse) @ q.T
        if not self.is_full:
            found += (right - inside @ q.T) / right.dtype.type(damping)
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
        lower, failed = self._factor(scale, damping, kind)
        if not failed:
            (invert,) = lapack.get_lapack_funcs(("potri",), (lower,))
            lower, failed = invert(lower, lower=1, overwrite_c=1)
        if failed or not np.isfinite(lower).all():
            found = self.spectrum(scale)
            clamped: Array = ((found.vectors / (found.values + damping)) @ found.vectors.T).astype(kind)
            return clamped
        upper: Array = lower.T  # C-contiguous: the triangle that was computed is its upper one
        for first in range(0, len(upper), MIRRORED):
            rows = slice(first, first + MIRRORED)
            upper[rows, :first] = upper[:first, rows].T
            own = upper[rows, rows]
            own[:] = np.triu(own) + np.triu(own, 1).T
        return upper

    def _factor(self, scale: Double, damping: float, kind: npt.DTypeLike) -> tuple[Array, int]:
        """Cholesky's lower factor, in Fortran's order, and whether there was none."""
        damped = np.array(self.scaled(scale, kind))
        damped.flat[:: len(damped) + 1] += damping
        (factorise,) = lapack.get_lapack_funcs(("potrf",), (damped,))
        lower, failed = factorise(damped.T, lower=1, overwrite_a=1)
        return lower, failed

    def inverse(self, scale: Double, damping: float, kind: npt.DTypeLike) -> Linear:
        matrix = self.inverse_matrix(scale, damping, kind)
        return lambda right: right @ matrix

    def solve(self, right: Double, scale: Double, damping: float) -> Double:
        lower, failed = self._factor(scale, damping, np.float64)
        found: Double = right
        if not failed:
            found, failed = lapack.dpotrs(lower, right.T, lower=1)
        if failed or not np.isfinite(found).all():
            return self.spectrum(scale).solve(right, damping).astype(np.float64)
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

    def rows_scaled(self, scale: Double) -> Array:
        found = self.spectrum(scale)
        rows: Double = np.sqrt(found.values)[:, None] * found.vectors.T
        return rows

    def permuted(self, columns: npt.NDArray[np.int64]) -> MatrixHessian:
        return MatrixHessian(self.matrix[np.ix_(columns, columns)])


class RowHessian:
    """H = XᵀX/R from its rows [R, n], in their own type."""

    def __init__(self, rows: Array) -> None:
        self.rows = rows
        self._known: tuple[Double, Spectrum] | None = None

    def diagonal(self) -> Double:
        squares: Double = np.einsum("rn,rn->n", self.rows, self.rows, dtype=np.float64) / len(self.rows)
        return squares

    def apply(self, weight: Double) -> Double:
        kind = self.rows.dtype
        found: Double = ((weight.astype(kind) @ self.rows.T) @ self.rows).astype(np.float64) / len(self.rows)
        return found

    def spectrum(self, scale: Double) -> Spectrum:
        """Through the R×R Gram matrix: X/√R S⁻¹ = U D Vᵀ, values D², vectors V."""
        if self._known is None or not np.array_equal(self._known[0], scale):
            rows = self.rows_scaled(scale)
            values, left = eigh(rows @ rows.T, driver="evd")
            used = values > 1e-10 * max(float(values[-1]), 1e-300)
            vectors = rows.T @ (left[:, used] / np.sqrt(values[used]))
            self._known = scale, Spectrum(values[used], vectors)
        return self._known[1]

    def inverse(self, scale: Double, damping: float, kind: npt.DTypeLike) -> Linear:
        found = self.spectrum(scale)
        return lambda right: found.solve(right, damping)

    def solve(self, right: Double, scale: Double, damping: float) -> Double:
        return self.spectrum(scale).solve(right, damping).astype(np.float64)

    def operator(self, scale: Double, kind: npt.DTypeLike) -> Linear:
        rows = self.rows_scaled(scale).astype(kind)
        return lambda right: (right @ rows.T) @ rows

    def rows_scaled(self, scale: Double) -> Array:
        scaled: Double = self.rows.astype(np.float64) / scale / np.sqrt(len(self.rows))
        return scaled

    def permuted(self, columns: npt.NDArray[np.int64]) -> RowHessian:
        return RowHessian(self.rows[:, columns])
