"""The damped problem that solvers minimise over masks and weights.

    min over Ŵ with an allowed mask of  tr((Ŵ − T) A (Ŵ − T)ᵀ),    A = H + λD,   T = (G + λ W₀ D)(H + λD)⁻¹

T is what the layer should be without any mask: with inputs that drifted it is *not* W₀ but W₀ pulled towards the dense
target (algorithm of sequential fitting). D is diag(H) ("diagonal") or its mean ("mean", SparseGPT's). Everything
happens in coordinates scaled by √D, where A becomes S + λ·1.
Inputs that are always zero (or in centred moments next to constant) get D from the mean: their weights keep W₀ in T and
have next to no saliency, so that they go first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from prunec.passes.solve.hessian import Array, Double, Linear, MatrixHessian
from prunec.passes.solve.problem import LayerProblem
from prunec.patterns import Layout

Kind = Literal["diagonal", "mean"]
DEAD_BELOW = 1e-10
"""An input is dead when its second moment is below this share of the mean."""
ROUNDED_AWAY = 2.0**-20
"""… or its variance below this share of its own second moment: it then varies by less than one step of FP16 (2⁻¹⁰ of
its value), and weights that make something of that give noise where inputs are rounded."""


@dataclass(frozen=True)
class Quadratic:
    """All arrays in scaled coordinates: weights w·√D. `target` T [m, n], `matrix_diagonal` of A [n]."""

    target: Double
    damping: float
    scale: Double
    diagonal: Double
    layout: Layout
    problem: LayerProblem
    dead: int

    def unscale(self, weight: Array) -> Double:
        plain: Double = weight.astype(np.float64) / self.scale
        return plain

    def operator(self, kind: npt.DTypeLike = np.float64) -> Linear:
        """W ↦ W·A for W of that type."""
        apply = self.problem.fit.hessian.operator(self.scale, kind)
        return lambda weight: apply(weight) + weight.dtype.type(self.damping) * weight

    def inverse(self, more: float = 0.0, kind: npt.DTypeLike = np.float64) -> Linear:
        """W ↦ W·(A + `more`)⁻¹ for W of that type."""
        return self.problem.fit.hessian.inverse(self.scale, self.damping + more, kind)

    def matrix(self) -> Double:
        """A [n, n]; only where H is a matrix."""
        hessian = self.problem.fit.hessian
        assert isinstance(hessian, MatrixHessian)
        scaled: Double = hessian.scaled(self.scale).astype(np.float64, copy=False)
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
    constant = np.square(problem.fit.mean) if problem.fit.is_centred else np.zeros_like(diagonal)
    dead = diagonal <= np.maximum(DEAD_BELOW * mean, ROUNDED_AWAY * (diagonal + constant))
    own = np.full_like(diagonal, mean) if kind == "mean" else np.where(dead, mean, diagonal)
    return np.sqrt(own), int(dead.sum())


def quadratic(problem: LayerProblem, damping: float, kind: Kind = "diagonal", *, to_dense: bool = True) -> Quadratic:
    """The problem at λ = `damping` (relative to D). Without `to_dense` T is W₀ itself, as published solvers have it."""
    scale, dead = scale_of(problem, kind)
    diagonal = problem.fit.hessian.diagonal() / scale**2 + damping
    start = problem.weight * scale
    if to_dense:
        residual = (problem.fit.cross - problem.fit.hessian.apply(problem.weight)) / scale
        start = start + problem.fit.hessian.solve(residual, scale, damping)
    return Quadratic(start, damping, scale, diagonal, problem.layout, problem, dead)
