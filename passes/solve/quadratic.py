"""The damped problem that solvers minimise over masks and weights.

    min over Ŵ with an allowed mask of  tr((Ŵ − T) A (Ŵ − T)ᵀ),    A = H + λD,   T = (G + λ W₀ D)(H + λD)⁻¹

T is what the layer should be without any mask: with inputs that drifted it is *not* W₀ but W₀ pulled towards the dense
target (algorithm of sequential fitting). D is diag(H) ("diagonal") or its mean ("mean", SparseGPT's). Everything
happens in coordinates scaled by √D: A becomes S + λ·1 and one eigendecomposition of S serves every λ.
Inputs that are always zero (or constant, in centred moments) get D from the mean: their weights keep W₀ in T and have
next to no saliency, so that they go first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from prunec.passes.solve.hessian import Array, Double, MatrixHessian, Spectrum
from prunec.passes.solve.problem import LayerProblem
from prunec.patterns import Layout

Kind = Literal["diagonal", "mean"]
DEAD_BELOW = 1e-10
"""An input is dead when its second moment is below this share of the mean."""


@dataclass(frozen=True)
class Quadratic:
    """All arrays in scaled coordinates: weights w·√D. `target` T [m, n], `matrix_diagonal` of A [n]."""

    target: Double
    spectrum: Spectrum
    damping: float
    scale: Double
    diagonal: Double
    layout: Layout
    problem: LayerProblem
    dead: int

    def unscale(self, weight: Array) -> Double:
        plain: Double = weight.astype(np.float64) / self.scale
        return plain

    def operator(self, kind: npt.DTypeLike = np.float64) -> Callable[[Array], Array]:
        """W ↦ W·A in that precision."""
        hessian = self.problem.fit.hessian
        if isinstance(hessian, MatrixHessian):
            matrix = self.matrix().astype(kind)
            return lambda weight: weight @ matrix
        rows = (hessian.rows_scaled(self.scale)).astype(kind)
        damping = rows.dtype.type(self.damping)
        return lambda weight: (weight @ rows.T) @ rows + damping * weight

    def matrix(self) -> Double:
        """A [n, n]; only where H is a matrix."""
        hessian = self.problem.fit.hessian
        assert isinstance(hessian, MatrixHessian)
        scaled = hessian.matrix / np.outer(self.scale, self.scale)
        scaled[np.diag_indices_from(scaled)] += self.damping
        return scaled

    def saliency(self, weight: Array) -> Array:
        """w²·A_jj: Wanda's score squared, in coordinates of any scale."""
        return np.square(weight) * self.diagonal.astype(weight.dtype)


def scale_of(problem: LayerProblem, kind: Kind = "diagonal") -> tuple[Double, int]:
    """√D [n] and the number of dead inputs."""
    diagonal = problem.fit.hessian.diagonal()
    mean = float(diagonal.mean())
    mean = mean if mean > 0 else 1.0
    dead = diagonal <= DEAD_BELOW * mean
    own = np.full_like(diagonal, mean) if kind == "mean" else np.where(dead, mean, diagonal)
    return np.sqrt(own), int(dead.sum())


def quadratic(problem: LayerProblem, damping: float, kind: Kind = "diagonal", *, to_dense: bool = True) -> Quadratic:
    """The problem at λ = `damping` (relative to D). Without `to_dense` T is W₀ itself, as published solvers have it."""
    scale, dead = scale_of(problem, kind)
    spectrum = problem.fit.hessian.spectrum(scale)
    diagonal = problem.fit.hessian.diagonal() / scale**2 + damping
    start = problem.weight * scale
    if to_dense:
        residual = (problem.fit.cross - problem.fit.hessian.apply(problem.weight)) / scale
        start = start + spectrum.solve(residual, damping)
    return Quadratic(start, spectrum, damping, scale, diagonal, problem.layout, problem, dead)
