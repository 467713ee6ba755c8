"""What a group's consumer knows about its inputs: a block of their covariance, inverted, or solved for some of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunec.array_store import let_go
from prunec.criteria.base import ridge
from prunec.plan.elimination import Double
from prunec.statistics import LayerStatistics
from prunec.statistics.cut_errors import Refit
from prunec.triangles import ROWS, mirror

ELEMENTS = 1 << 19
"""Of a weight that are in float64 at a time."""


@dataclass(frozen=True)
class Part:
    """Part `number` (a group of a convolution, else 0) of the consumer `node`: the positions `own` of its inputs.

    channel: int64 [n], whose each position is, −1 for nobody's. Matrices are float64 [n, n] in C order.
    """

    node: str
    number: int
    channel: np.ndarray
    own: slice
    seen: LayerStatistics

    def energy(self, gram: Double) -> float:
        """tr(W C Wᵀ) for WᵀW."""
        block = self._block()
        found = 0.0
        for first in range(0, len(block), ROWS):
            own = slice(first, first + ROWS)
            found += float((gram[own] * block[own]).sum())
            self._let_go()
        return found

    def inverse(self) -> Double:
        """C⁻¹ of the damped covariance."""
        from scipy.linalg.lapack import dpotrf, dpotri

        block = self._block()
        damped = np.empty(block.shape, order="F")
        for first in range(0, len(block), ROWS):
            damped[:, first : first + ROWS] = block[first : first + ROWS].T
            self._let_go()
        damped[np.diag_indices(len(damped))] += ridge(damped)
        factor, failed = dpotrf(damped, lower=1, overwrite_a=1)
        inverse, singular = dpotri(factor, lower=1, overwrite_c=1)
        if failed or singular:
            raise np.linalg.LinAlgError("a covariance is not positive definite")
        mirror(inverse)
        found: Double = inverse.T
        return found

    def refit(self, gone: np.ndarray) -> Refit | None:
        """What the other positions say about those of the channels `gone`; None where there are none of these."""
        from scipy.linalg import cho_factor, cho_solve

        removed = np.isin(self.channel, gone)
        if not removed.any():
            return None
        block = self._block()
        left = block[np.ix_(~removed, ~removed)]
        left[np.diag_indices(len(left))] += ridge(block)[~removed]
        right = block[np.ix_(removed, ~removed)]
        self._let_go()
        if len(left):
            factor = cho_factor(left.T, lower=True, overwrite_a=True, check_finite=False)
            right = cho_solve(factor, right.T, overwrite_b=True, check_finite=False).T
        return Refit(self.node, self.number, np.flatnonzero(removed), right, self.seen.mean[self.own])

    def _block(self) -> Double:
        assert self.seen.covariance is not None
        return self.seen.covariance[self.own, self.own]

    def _let_go(self) -> None:
        assert self.seen.covariance is not None
        let_go(self.seen.covariance)


def gram(weight: np.ndarray) -> Double:
    """W Wᵀ in float64, of which W as a whole may take twice its bytes."""
    from scipy.linalg.blas import dsyrk

    found = np.zeros((len(weight), len(weight)), order="F")
    step = max(ELEMENTS // max(len(weight), 1), 64)
    for first in range(0, weight.shape[1], step):
        block = weight[:, first : first + step].astype(np.float64, order="F")
        found = dsyrk(1.0, block, 1.0, found, lower=1, overwrite_c=1)
    mirror(found)
    return np.asarray(found.T)
