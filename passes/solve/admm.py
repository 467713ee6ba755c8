"""ALPS (arXiv 2406.07831): alternate between the quadratic and the projection onto the pattern.

    B = (T A − V + ρD)(A + ρ)⁻¹,   D = Proj(B + V/ρ),   V += ρ(B − D)

in coordinates where diag(H) = 1; ρ starts at 0.1 and grows every three iterations by how much the mask still moves,
about twice as fast as in the paper where inverses are dear. It ends when the mask stands still. Any pattern is only
another Proj, and a grid for the weights is one more. What comes back is the mask; its exact weights are `refit`'s
business.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunec.passes.solve.grid import WeightGrid
from prunec.passes.solve.hessian import Array
from prunec.passes.solve.quadratic import Quadratic
from prunec.patterns.base import Mask, Pattern, Scope

START = 0.1
EVERY = 3
GROWTH = ((0.1, 1.3), (0.005, 1.2), (0.0, 1.1))
"""(share of the kept entries that moved, factor for ρ), the first row that applies."""
FAST_FROM, FAST_GROWTH = 512, ((0.1, 1.6), (0.005, 1.4), (0.0, 1.2))
"""Columns from which ρ grows faster."""
WIDE = 1024
"""Columns from which ρ grows half as often, by the square: each time costs an inverse."""
NARROW_FROM = 256
"""Columns from which products run in single precision."""


@dataclass(frozen=True)
class Found:
    mask: Mask
    iterations: int
    has_settled: bool
    weight: Array
    """The last projected iterate, a good start for a refit."""


def admm(
    q: Quadratic,
    pattern: Pattern,
    level: float,
    *,
    iterations: int = 300,
    scope: Scope = "layer",
    grid: WeightGrid | None = None,
) -> Found:
    """The mask that the iteration ends with."""
    kind = np.dtype(np.float32 if q.target.shape[1] >= NARROW_FROM else np.float64)
    apply = q.operator(kind)
    target = q.target.astype(kind)
    goal = apply(target)

    def project(weight: Array) -> Mask:
        return pattern.project(q.saliency(weight), q.layout, level, scope)

    def placed(weight: Array) -> Array:
        return weight if grid is None else (grid.nearest(q.unscale(weight)) * q.scale).astype(kind)

    mask = project(target)
    kept = max(int(mask.sum()), 1)
    growth = FAST_GROWTH if q.target.shape[1] >= FAST_FROM else GROWTH
    strides = 2 if q.target.shape[1] >= WIDE else 1
    d = np.where(mask, placed(target), 0).astype(kind)
    v = np.zeros_like(target)
    rho = START
    inverse = q.inverse(rho, kind)
    before, done, settled = mask, 0, False
    for done in range(1, iterations + 1):
        b = inverse(goal - v + kind.type(rho) * d)
        shifted = b + v / kind.type(rho)
        mask = project(shifted)
        d = np.where(mask, placed(shifted), 0).astype(kind)
        v += kind.type(rho) * (b - d)
        if done % (EVERY * strides):
            continue
        moved = int((mask & ~before).sum()) / kept
        if moved == 0:
            settled = True
            break
        before = mask
        rho *= next(factor for share, factor in growth if moved > share) ** strides
        inverse = q.inverse(rho, kind)
    return Found(mask, done, settled, d)
