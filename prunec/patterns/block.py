"""Blocks of r outputs × c input channels that stay or go whole; 1×1 is unstructured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunec.patterns.base import Array, Mask, Pattern, Proof, Scope
from prunec.patterns.layout import Layout
from prunec.patterns.select import kept_count, top_k, top_k_rows


def choose(units: Array, level: float, scope: Scope) -> Mask:
    """Units [rows, n] to keep at a level, over all or in each row."""
    if scope == "row":
        return top_k_rows(units, kept_count(units.shape[1], level))
    return top_k(units, kept_count(units.size, level))


def proof(name: str, units: Array, zeros: float, level: float | None) -> Proof:
    """From the number of non-zeros of every unit: all zero or not, and are enough zero?"""
    zero = int((units == 0).sum())
    wanted = 0.0 if level is None else level
    passed = units.size - zero <= kept_count(units.size, wanted)
    return Proof(name, wanted, units.size, units.size if passed else zero, zeros, passed)


@dataclass(frozen=True)
class Block(Pattern):
    """`r` consecutive outputs × `c` consecutive input channels of one kernel position."""

    r: int
    c: int

    @property
    def name(self) -> str:
        return "unstructured" if self.r == self.c == 1 else f"block:{self.r}x{self.c}"

    @property
    def rows(self) -> int:  # type: ignore[override]
        return self.r

    @property
    def width(self) -> int:  # type: ignore[override]
        return self.c

    def refusal(self, outputs: int, layout: Layout) -> str | None:
        if outputs % self.r:
            return f"{self.name} needs output channels in multiples of {self.r}, there are {outputs}"
        if layout.channels % self.c:
            return f"{self.name} needs input channels in multiples of {self.c}, there are {layout.channels}"
        return None

    def pooled(self, saliency: Array) -> Array:
        """Sums over blocks [outputs/r, columns/c]."""
        rows, columns = saliency.shape
        if self.r == self.c == 1:
            return saliency
        summed: Array = saliency.reshape(rows // self.r, self.r, columns // self.c, self.c).sum(axis=(1, 3))
        return summed

    def spread(self, units: Mask) -> Mask:
        """A mask of blocks as a mask of entries."""
        return np.repeat(np.repeat(units, self.r, axis=0), self.c, axis=1)

    def _project(self, saliency: Array, layout: Layout, level: float, scope: Scope) -> Mask:
        return self.spread(choose(self.pooled(saliency), level, scope))

    def check(self, weight: Array, layout: Layout, level: float | None = None) -> Proof:
        zeros = 1 - int(np.count_nonzero(weight)) / max(weight.size, 1)
        if self.refusal(len(weight), layout) is not None:
            return Proof(self.name, level or 0.0, 0, 0, zeros, False)
        return proof(self.name, self.pooled((weight != 0).astype(np.float64)), zeros, level)


@dataclass(frozen=True)
class Kernel(Pattern):
    """All kernel positions of an (output, input channel) pair stay or go together."""

    @property
    def name(self) -> str:
        return "kernel"

    def refusal(self, outputs: int, layout: Layout) -> str | None:
        return None

    def pooled(self, saliency: Array, layout: Layout) -> Array:
        summed: Array = saliency.reshape(len(saliency), layout.positions, layout.channels).sum(axis=1)
        return summed

    def _project(self, saliency: Array, layout: Layout, level: float, scope: Scope) -> Mask:
        return np.tile(choose(self.pooled(saliency, layout), level, scope), (1, layout.positions))

    def check(self, weight: Array, layout: Layout, level: float | None = None) -> Proof:
        zeros = 1 - int(np.count_nonzero(weight)) / max(weight.size, 1)
        return proof(self.name, self.pooled((weight != 0).astype(np.float64), layout), zeros, level)
