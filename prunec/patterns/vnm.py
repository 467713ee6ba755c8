"""V:N:M (VENOM, arXiv 2310.02065): in blocks of V outputs × M input channels four columns stay, N of those per row.

With N = 2 this runs on 2:4 hardware at sparsity 1 − 2/M: the four columns of a block are gathered first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunec.patterns.base import Array, Mask, Pattern, Proof, Scope
from prunec.patterns.layout import Layout
from prunec.patterns.select import top_k_rows

COLUMNS = 4
"""Columns that a block keeps: the M of the hardware's 2:4."""


@dataclass(frozen=True)
class VNM(Pattern):
    """Blocks of `v` rows, `n` of `m` columns per row, all within four columns that the block's rows share."""

    v: int
    n: int
    m: int

    @property
    def name(self) -> str:
        return f"vnm:{self.v}:{self.n}:{self.m}"

    @property
    def width(self) -> int:  # type: ignore[override]
        return self.m

    @property
    def quantum(self) -> int:
        return self.v

    @property
    def fixed_level(self) -> float:
        return 1 - self.n / self.m

    def refusal(self, outputs: int, layout: Layout) -> str | None:
        if outputs % self.v:
            return f"{self.name} needs output channels in multiples of {self.v}, there are {outputs}"
        if layout.channels % self.m:
            return f"{self.name} needs input channels in multiples of {self.m}, there are {layout.channels}"
        return None

    def _blocks(self, array: np.ndarray) -> np.ndarray:
        """[blocks of rows, v, groups of columns, m]."""
        return array.reshape(len(array) // self.v, self.v, -1, self.m)

    def _project(self, saliency: Array, layout: Layout, level: float, scope: Scope) -> Mask:
        blocks = self._blocks(saliency)
        own = np.where(top_k_rows(blocks, self.n), blocks, 0)  # what each row would keep if it were alone
        columns = top_k_rows(own.sum(axis=1) + 1e-12 * blocks.sum(axis=1), COLUMNS)[:, None]
        inside = np.where(columns, blocks, -1.0)
        mask: Mask = (top_k_rows(inside, self.n) & columns).reshape(saliency.shape)
        return mask

    def check(self, weight: Array, layout: Layout, level: float | None = None) -> Proof:
        zeros = 1 - int(np.count_nonzero(weight)) / max(weight.size, 1)
        if self.refusal(len(weight), layout) is not None:
            return Proof(self.name, self.fixed_level, 0, 0, zeros, False)
        kept = self._blocks(weight) != 0
        rows = (kept.sum(axis=3) <= self.n).all(axis=1)
        valid = rows & (kept.any(axis=1).sum(axis=2) <= COLUMNS)
        return Proof(self.name, self.fixed_level, valid.size, int(valid.sum()), zeros, bool(valid.all()))
