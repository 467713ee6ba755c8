"""DSnoT (arXiv 2310.08915): swap what is kept so that each output's mean error vanishes; kept weights stay as they are.

Row error e = Σ_removed w·μ (what the mask changes on average). Each cycle regrows the removed weight that moves e most
towards 0 (w·μ/σ), and removes the kept one with the least |w|·√E[x²] whose removal does not push e away again; for N:M
inside the same group. It stops at |e| ≤ 0.1 (relative to the row) or after 50 cycles.
Needs the means of the inputs: uncentred moments know nothing of them, and centred ones have no error to correct, so the
means come with the problem.
"""

from __future__ import annotations

import numpy as np

from prunec.passes.solve.hessian import Double
from prunec.passes.solve.quadratic import Quadratic
from prunec.patterns.base import Mask, Pattern
from prunec.patterns.block import Block
from prunec.patterns.nm import NM

CYCLES = 50
LIMIT = 0.1


def refusal(pattern: Pattern) -> str | None:
    if isinstance(pattern, NM) or (isinstance(pattern, Block) and pattern.name == "unstructured"):
        return None
    return f"DSnoT swaps single weights, not {pattern.name}"


def dsnot(q: Quadratic, pattern: Pattern, mask: Mask, mean: Double) -> Mask:
    """A mask with the same counts. `mean` [n] is E[x] in plain coordinates."""
    assert refusal(pattern) is None
    weight = q.target
    moved = weight * (mean / q.scale)  # what each weight contributes to the mean output
    deviation = np.sqrt(np.maximum(q.diagonal - np.square(mean / q.scale), 1e-12 * q.diagonal))
    towards = moved / deviation
    saliency = q.saliency(weight)
    group = pattern.m if isinstance(pattern, NM) else weight.shape[1]
    mask = mask.copy()
    limit = LIMIT * np.abs(moved).mean(axis=1) * np.sqrt(weight.shape[1])
    every = np.arange(len(weight))
    active = np.ones(len(weight), bool)
    for _ in range(CYCLES):
        error = np.where(mask, 0.0, moved).sum(axis=1)
        active &= np.abs(error) > limit
        if not active.any():
            break
        sign = np.sign(error)[:, None]
        gain = np.where(mask, -np.inf, towards * sign)
        grow = gain.argmax(axis=1)
        same = (np.arange(weight.shape[1]) // group) == (grow // group)[:, None]
        helps = (moved * sign <= 0) & mask & same
        drop = np.where(helps, saliency, np.inf).argmin(axis=1)
        after = error - moved[every, grow] + moved[every, drop]
        good = active & helps[every, drop] & (gain[every, grow] > 0) & (np.abs(after) < np.abs(error))
        mask[every[good], grow[good]] = True
        mask[every[good], drop[good]] = False
        active &= good
    return mask
