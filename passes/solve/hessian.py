"""H = E[x xᵀ] as what solvers need of it: its diagonal, products W·H, and its spectrum in scaled coordinates.

`MatrixHessian` holds H itself. `RowHessian` holds the rows X [R, n] with H = XᵀX/R: for layers with so many inputs that
H would not fit (65 536 inputs a filter would be 34 GB), at the price that H has rank R at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

Double = npt.NDArray[np.float64]
Array = npt.NDArray[np.floating]


class Hessian(Protocol):
    def diagonal(self) -> Double: ...

    def apply(self, weight: Double) -> Double:
        """W·H for W [m, n]."""
        ...

    def spectrum(self, scale: Double) -> Spectrum:
        """Of S⁻¹ H S⁻¹ with S = diag(scale)."""
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

    def inverse(self, damping: float, kind: npt.DTypeLike = np.float64) -> Array:
        """(H + λ)⁻¹ [n, n]; only where Q is square."""
        assert self.is_full
        q = self.vectors if np.dtype(kind) == np.float64 else self.narrow
        scaled: Array = (q / (self.values + damping).astype(q.dtype)) @ q.T
        return scaled


class MatrixHessian:
    """H [n, n] in float64."""

    def __init__(self, matrix: Double) -> None:
        self.matrix = matrix
        self._known: tuple[Double, Spectrum] | None = None

    def diagonal(self) -> Double:
        diagonal: Double = np.diagonal(self.matrix).copy()
        return diagonal

    def apply(self, weight: Double) -> Double:
        found: Double = weight @ self.matrix
        return found

    def spectrum(self, scale: Double) -> Spectrum:
        if self._known is None or not np.array_equal(self._known[0], scale):
            scaled = self.matrix / np.outer(scale, scale)
            values, vectors = np.linalg.eigh((scaled + scaled.T) / 2)
            self._known = scale, Spectrum(np.maximum(values, 0.0), vectors)
        return self._known[1]

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
            values, left = np.linalg.eigh(rows @ rows.T)
            used = values > 1e-10 * max(float(values[-1]), 1e-300)
            vectors = rows.T @ (left[:, used] / np.sqrt(values[used]))
            self._known = scale, Spectrum(values[used], vectors)
        return self._known[1]

    def rows_scaled(self, scale: Double) -> Array:
        scaled: Double = self.rows.astype(np.float64) / scale / np.sqrt(len(self.rows))
        return scaled

    def permuted(self, columns: npt.NDArray[np.int64]) -> RowHessian:
        return RowHessian(self.rows[:, columns])
