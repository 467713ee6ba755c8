"""N:M: of every M consecutive input channels of a row, N stay.

**N is what is kept** (2:4 keeps two of four), as hardware manuals say it. SparseGPT's code passes the number removed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunec.patterns.base import Array, Mask, Pattern, Proof, Scope
from prunec.patterns.layout import Layout
from prunec.patterns.select import top_k_rows


@dataclass(frozen=True)
class NM(Pattern):
    """Keep `n` of `m`."""

    n: int
    m: int

    @property
    def name(self) -> str:
        return f"{self.n}:{self.m}"

    @property
    def width(self) -> int:  # type: ignore[override]
        return self.m

    @property
    def fixed_level(self) -> float:
        return 1 - self.n / self.m

    def refusal(self, outputs: int, layout: Layout) -> str | None:
        if layout.channels % self.m:
            return f"{self.name} needs input channels in multiples of {self.m}, there are {layout.channels}"
        return None

    def _project(self, saliency: Array, layout: Layout, level: float, scope: Scope) -> Mask:
        return top_k_rows(saliency.reshape(len(saliency), -1, self.m), self.n).reshape(saliency.shape)

    def check(self, weight: Array, layout: Layout, level: float | None = None) -> Proof:
        groups = np.count_nonzero(weight.reshape(-1, self.m), axis=1)
        valid = int((groups <= self.n).sum())
        passed = self.refusal(len(weight), layout) is None and valid == len(groups)
        zeros = 1 - float(groups.sum()) / max(weight.size, 1)
        return Proof(self.name, self.fixed_level, len(groups), valid, zeros, passed)
