"""Layers with correlated inputs, for tests of solvers."""

from __future__ import annotations

import numpy as np

from prunec.passes.solve import LayerProblem
from prunec.patterns import Layout


def rows(random: np.random.Generator, count: int, width: int, alpha: float) -> np.ndarray:
    rotation = np.linalg.qr(random.standard_normal((width, width)))[0]
    root = rotation * np.sqrt(np.arange(1, width + 1) ** -alpha)
    return random.standard_normal((count, width)) @ root.T


def layer(
    outputs: int = 16,
    width: int = 32,
    *,
    alpha: float = 1.0,
    samples: int = 512,
    seed: int = 0,
    layout: Layout | None = None,
    centred: bool = False,
    as_rows: bool = False,
) -> LayerProblem:
    random = np.random.default_rng(seed)
    weight = random.standard_normal((outputs, width))
    x = rows(random, 2 * samples, width, alpha) + centred * 0.5
    t = x @ weight.T
    halves = [(x[part], t[part]) for part in (slice(samples), slice(samples, None))]
    return LayerProblem.of_rows(weight, halves[0], halves[1], layout, centred=centred, as_rows=as_rows)
