"""Synthetic layers and networks with correlated inputs, for benchmarks of solvers.

Inputs x = s ∘ (Σ^½ g + μ), g Gaussian, Σ = Q diag(i^−α) Qᵀ with a random rotation Q (mean eigenvalue 1), s log-normal
channel scales (σ = .5) of which 1 % are ten times as large; weights Gaussian.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Double = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Inputs:
    """Rows for calibration [n, width] and for the test [test, width], drawn independently."""

    calibration: Double
    test: Double


def inputs(random: np.random.Generator, alpha: float, mean: float, samples: int, width: int, test: int) -> Inputs:
    rotation = np.linalg.qr(random.standard_normal((width, width)))[0]
    values = np.arange(1, width + 1) ** -alpha
    root = rotation * np.sqrt(values / values.mean())
    scales = np.exp(0.5 * random.standard_normal(width))
    scales[random.choice(width, round(width / 100), replace=False)] *= 10

    def rows(count: int) -> Double:
        drawn: Double = (random.standard_normal((count, width)) @ root.T + mean) * scales
        return drawn

    return Inputs(rows(samples), rows(test))


def relative_error(weight: Double, pruned: Double, rows: Double) -> float:
    """‖(W − Ŵ)X‖/‖WX‖."""
    return float(np.linalg.norm(rows @ (weight - pruned).T) / np.linalg.norm(rows @ weight.T))


def relu(rows: Double) -> Double:
    return np.maximum(rows, 0)


def network(random: np.random.Generator, depth: int, width: int) -> list[Double]:
    """Weights of a ReLU network, He's initialisation."""
    return [random.standard_normal((width, width)) * np.sqrt(2 / width) for _ in range(depth)]


def forward(layers: list[Double], rows: Double) -> Double:
    """Output; no activation behind the last layer."""
    for weight in layers[:-1]:
        rows = relu(rows @ weight.T)
    return rows @ layers[-1].T
