"""AdaRound (Nagel et al., arXiv 2004.10568): whether each weight goes up or down is learnt from the layer's error.

    min over V of  tr((Ŵ − T) A (Ŵ − T)ᵀ) / c + λ Σ (1 − |2h(V) − 1|^β),    Ŵ = s (⌊W/s⌋ + h(V)),
    h(V) = clip(1.2 σ(V) − 0.1, 0, 1)

The error is the layer's quadratic (`quadratic.py`), which is that of all samples at once and needs no more than its
moments; c is the mean curvature s² A_jj, so that one λ serves every layer. β falls from 20 to 2 as a half cosine once
the first part is over, which drives every h to 0 or 1. What is left between them goes to the nearer side, and then
single weights change sides while the error falls (`moves.py`). Steps s stay, and so does a zero of the mask.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from prunec.passes.solve.grid import WeightGrid
from prunec.passes.solve.hessian import Double, MatrixHessian
from prunec.passes.solve.moves import settled
from prunec.passes.solve.quadratic import Quadratic
from prunec.patterns.base import Mask

ITERATIONS, FEWEST = 600, 100
WORK = 3e12
"""Operations that a layer's iterations may take, unless that is less than `FEWEST`."""
RATE, SHARE, FIRST_BETA, LAST_BETA, WARM_UP = 0.2, 0.5, 20.0, 2.0, 0.2
"""Adam's step on V, λ, both ends of β, and the part of the iterations that the error has to itself. Of λ from .1 to 2
and steps from .02 to .2 these gave the least held-out error on a layer of fashion-net (blocks.1.conv1)."""
STRETCH, BELOW = 1.2, -0.1
"""h reaches 0 and 1 at finite V."""
ROUNDS = 20
_Single = npt.NDArray[np.float32]


def adaround(q: Quadratic, weight: Double, mask: Mask, grid: WeightGrid, iterations: int | None = None) -> Double:
    """Plain weights [m, n] on `grid`, each next to `weight` [m, n] (plain) on either side; +0.0 outside the mask.

    `iterations` of Adam: as many as `WORK` allows if None; with 0 only single weights change sides, from the nearest
    values on. Nothing is drawn at random. Where H is no matrix no single weight moves in the end.
    """
    whole = np.clip(np.floor(weight / grid.steps[:, None]), -grid.levels, grid.levels - 1)
    share = np.clip(weight / grid.steps[:, None] - whole, 0.0, 1.0)
    count = affordable(mask.shape) if iterations is None else iterations
    up = (_learnt(q, whole, share, mask, grid, count) if count else share) >= 0.5
    low, high = (value * grid.steps[:, None] + 0.0 for value in (whole, whole + 1))
    found = np.where(mask, np.where(up, high, low), 0.0)
    if not isinstance(q.problem.fit.hessian, MatrixHessian):
        return found
    moved = q.unscale(settled(q, found * q.scale, mask, grid, (low, high), ROUNDS))
    return np.where(mask, grid.nearest(moved), 0.0)  # to the last bit, after scaling to and fro


def affordable(shape: tuple[int, ...]) -> int:
    """Iterations for weights [m, n]: two products with A [n, n] cost most of each."""
    m, n = shape
    return int(np.clip(WORK / (2 * m * n * n), FEWEST, ITERATIONS))


def _learnt(q: Quadratic, whole: Double, share: Double, mask: Mask, grid: WeightGrid, count: int) -> _Single:
    """h(V) [m, n] after `count` steps of Adam, from where Ŵ is the float weight."""
    step = (grid.steps[:, None] * q.scale).astype(np.float32)
    target, low = q.target.astype(np.float32), (whole * step).astype(np.float32)
    keep, apply = mask.astype(np.float32), q.operator(np.float32)
    curvature = float((np.square(step) * q.diagonal.astype(np.float32))[mask].mean()) if mask.any() else 1.0
    start = np.clip((share - BELOW) / STRETCH, 1e-3, 1 - 1e-3)
    v = np.log(start / (1 - start)).astype(np.float32)
    first, second = np.zeros_like(v), np.zeros_like(v)
    for number in range(count):
        sigmoid = 1 / (1 + np.exp(-v))
        raw = STRETCH * sigmoid + BELOW
        h = np.clip(raw, 0, 1)
        gradient = 2 * apply((low + h * step) * keep - target) * step / curvature
        beta = _beta(number / count)
        if beta is not None:
            apart = 2 * h - 1
            gradient -= SHARE * 2 * beta * np.abs(apart) ** (beta - 1) * np.sign(apart)
        gradient *= ((raw > 0) & (raw < 1)) * keep * STRETCH * sigmoid * (1 - sigmoid)
        first += 0.1 * (gradient - first)
        second += 0.001 * (np.square(gradient) - second)
        size = np.sqrt(second / (1 - 0.999 ** (number + 1))) + 1e-8
        v -= RATE * (first / (1 - 0.9 ** (number + 1))) / size
    found: _Single = np.clip(STRETCH / (1 + np.exp(-v)) + BELOW, 0, 1)
    return found


def _beta(progress: float) -> float | None:
    """None while the error is alone."""
    if progress < WARM_UP:
        return None
    after = (progress - WARM_UP) / (1 - WARM_UP)
    return float(LAST_BETA + 0.5 * (FIRST_BETA - LAST_BETA) * (1 + np.cos(np.pi * after)))
