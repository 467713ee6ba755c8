"""ARMOR (arXiv 2510.05528): a patterned core between two block-diagonal wrappers, W ≈ L·(S ∘ M)·R.

L [m, m] and R [n, n] are block-diagonal with blocks of b, and cost b(1/m + 1/n) of the dense layer's products at run
time: a few percent for thousands of channels, worthless for small layers. That is why nothing but a caller asks for it.
Minimised is the proxy Σ_ij (Ŵ − T)²_ij·d_j with d = diag(A). Each sweep solves R and L exactly (least squares, block by
block) and takes projected gradient steps in the core with the step 1/Lipschitz, whose projection chooses the mask anew.
None of these can raise the loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunec.diagnostics import PrunecError
from prunec.passes.solve.hessian import Double
from prunec.passes.solve.masks import wanda_mask
from prunec.passes.solve.quadratic import Quadratic
from prunec.patterns import Pattern
from prunec.patterns.base import Mask

SWEEPS = 30
STEPS = 3
"""Core steps per sweep."""
RIDGE = 1e-9


@dataclass(frozen=True)
class Armored:
    """`left` [m/b, b, b], `core` [m, n] (zero outside `mask`), `right` [n/b, b, b], in plain coordinates.

    `loss`: proxy over that of no weights at all, before the first sweep and after each.
    """

    left: Double
    core: Double
    right: Double
    mask: Mask
    loss: tuple[float, ...]

    def product(self) -> Double:
        """L·core·R [m, n]."""
        return _right(_left(self.left, self.core), self.right)

    @property
    def overhead(self) -> float:
        """Products of the wrappers as a share of the dense layer's."""
        m, n = self.core.shape
        return float(self.left.shape[1] * (1 / m + 1 / n))


def armor(q: Quadratic, pattern: Pattern, level: float, *, block: int = 64, sweeps: int = SWEEPS) -> Armored:
    """Start from the Wanda mask with identity wrappers and alternate.

    Raises:
        PrunecError PC225: the block does not divide the weight.
    """
    target = q.target / q.scale
    m, n = target.shape
    if m % block or n % block:
        raise PrunecError("PC225", f"blocks of {block} do not divide a weight of {m}×{n}", hint="another block size")
    weights = q.diagonal * np.square(q.scale)
    mask = wanda_mask(q, pattern, level, "layer")
    core = np.where(mask, target, 0.0)
    left, right = np.tile(np.eye(block), (m // block, 1, 1)), np.tile(np.eye(block), (n // block, 1, 1))
    whole = float((np.square(target) * weights).sum()) or 1.0

    def loss() -> float:
        error = np.square(_right(_left(left, core), right) - target) * weights
        return float(error.sum() / whole)

    losses = [loss()]
    for _ in range(sweeps):
        right = _fit_right(_left(left, core), target, block)
        left = _fit_left(_right(core, right), target, weights, block)
        for _ in range(STEPS):
            core, mask = _step(left, core, right, target, weights, pattern, level, q)
        losses.append(loss())
    return Armored(left, core, right, mask, tuple(losses))


def _left(left: Double, core: Double) -> Double:
    found: Double = np.matmul(left, core.reshape(len(left), left.shape[1], -1)).reshape(core.shape)
    return found


def _right(core: Double, right: Double) -> Double:
    blocks = core.reshape(len(core), len(right), -1).transpose(1, 0, 2)
    found: Double = np.matmul(blocks, right).transpose(1, 0, 2).reshape(core.shape)
    return found


def _fit_right(inner: Double, target: Double, block: int) -> Double:
    """R_c = argmin ‖N_c R_c − T_c‖², whatever the columns weigh."""
    n = inner.reshape(len(inner), -1, block).transpose(1, 0, 2)
    t = target.reshape(len(target), -1, block).transpose(1, 0, 2)
    return _ridge(np.matmul(n.transpose(0, 2, 1), n), np.matmul(n.transpose(0, 2, 1), t))


def _fit_left(inner: Double, target: Double, weights: Double, block: int) -> Double:
    """L_r = argmin ‖(L_r P_r − T_r) D^½‖²."""
    p = inner.reshape(-1, block, inner.shape[1])
    t = target.reshape(-1, block, target.shape[1])
    gram = np.matmul(p * weights, p.transpose(0, 2, 1))
    found: Double = _ridge(gram, np.matmul(p * weights, t.transpose(0, 2, 1))).transpose(0, 2, 1)
    return found


def _ridge(gram: Double, right: Double) -> Double:
    size = gram.shape[1]
    trace = np.trace(gram, axis1=1, axis2=2)[:, None, None]
    found: Double = np.linalg.solve(gram + (RIDGE * trace / size + 1e-300) * np.eye(size), right)
    return found


def _step(
    left: Double,
    core: Double,
    right: Double,
    target: Double,
    weights: Double,
    pattern: Pattern,
    level: float,
    q: Quadratic,
) -> tuple[Double, Mask]:
    """Projected gradient with one Lipschitz constant for the layer."""
    block = right.shape[1]
    residual = (_right(_left(left, core), right) - target) * weights
    turned = right.transpose(0, 2, 1)
    gradient = _right(_left(left.transpose(0, 2, 1), residual), turned)
    scaled = np.matmul(right * weights.reshape(-1, 1, block), turned)
    bound = float(np.linalg.norm(left, 2, axis=(1, 2)).max()) ** 2 * float(np.linalg.norm(scaled, 2, axis=(1, 2)).max())
    moved = core - gradient / bound if bound > 0 else core
    mask = pattern.project(np.square(moved), q.layout, level)
    return np.where(mask, moved, 0.0), mask
