"""What every pattern can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from prunec.diagnostics import PrunecError
from prunec.patterns.layout import Layout

Array = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]
Scope = Literal["layer", "row"]
"""What competes with what where a level is to be met: all units of the layer, or those of each output row."""


@dataclass(frozen=True)
class Proof:
    """What was counted in a weight. `units` are N:M groups, blocks, kernels or entries; `zeros` the share of entries.

    `valid` units obey the pattern; `passed` if all do and as many are zero as the level demands.
    """

    pattern: str
    level: float
    units: int
    valid: int
    zeros: float
    passed: bool


class Pattern(ABC):
    """A set of allowed masks on matrices [outputs, columns] (see `Layout`).

    `name` reads back with `parse`. `rows` is how many consecutive outputs always share a mask, `width` how many
    consecutive columns belong together; outputs come in multiples of `quantum`.
    """

    rows: int = 1
    width: int = 1

    @property
    def quantum(self) -> int:
        return self.rows

    @property
    @abstractmethod
    def name(self) -> str: ...

    @abstractmethod
    def refusal(self, outputs: int, layout: Layout) -> str | None:
        """Why such a weight cannot have the pattern, or None."""

    @abstractmethod
    def _project(self, saliency: Array, layout: Layout, level: float, scope: Scope) -> Mask: ...

    @abstractmethod
    def check(self, weight: Array, layout: Layout, level: float | None = None) -> Proof:
        """Count zeros in a weight [outputs, columns]; nothing is believed but the weight's own bytes."""

    @property
    def fixed_level(self) -> float | None:
        """The sparsity that the pattern itself implies, None where it can be chosen."""
        return None

    def level(self, asked: float | None) -> float:
        """The sparsity of a layer with the pattern, where the mean over all layers is to be `asked`.

        Raises:
            PrunecError PC224: as for `mean_level`.
        """
        mean = self.mean_level(asked)
        return mean if self.fixed_level is None else self.fixed_level

    def mean_level(self, asked: float | None) -> float:
        """The mean sparsity of the layers: patterns that imply their own can leave some of them dense.

        Raises:
            PrunecError PC224: none was given and the pattern implies none, it is out of range, or more than implied.
        """
        fixed = self.fixed_level
        if fixed is not None:
            if asked is not None and not 0 < asked <= fixed + 1e-9:
                message = f"{self.name} removes at most {fixed:g} of the weights, not {asked:g}"
                hint = "less leaves layers dense, without --sparsity none"
                raise PrunecError("PC224", message, where="--sparsity", hint=hint)
            return fixed if asked is None else min(asked, fixed)
        if asked is None:
            message = f"{self.name} says nothing about how many weights go"
            raise PrunecError("PC224", message, where="--pattern", hint="add --sparsity 0.5")
        if not 0 < asked < 1:
            raise PrunecError("PC224", f"sparsity {asked:g} does not lie between 0 and 1", where="--sparsity")
        return asked

    def project(self, saliency: Array, layout: Layout, level: float, scope: Scope = "layer") -> Mask:
        """The allowed mask with the most saliency kept: exact counts, the first of equal ones.

        `saliency` [outputs, columns] is additive (squares, not absolute values) and finite.
        """
        outputs, columns = saliency.shape
        assert columns == layout.columns, f"{columns} columns, the layout has {layout.columns}"
        refusal = self.refusal(outputs, layout)
        if refusal is not None:
            raise PrunecError("PC225", refusal, where=self.name, hint="leave the layer dense or choose another pattern")
        if not np.isfinite(saliency).all():
            raise PrunecError("PC330", "the saliency of a weight is not finite", where=self.name)
        mask = self._project(saliency, layout, level, scope)
        assert mask.shape == saliency.shape
        return mask

    def __str__(self) -> str:
        return self.name
