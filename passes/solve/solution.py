"""What solvers give back."""

from __future__ import annotations

from dataclasses import dataclass

from prunec.passes.solve.hessian import Double
from prunec.patterns.base import Mask


@dataclass(frozen=True)
class Trial:
    """One attempt: relative errors ‖t − Ŵx‖²/‖t‖² on the data it was fitted to and on held-out data."""

    method: str
    damping: float
    error_fit: float
    error_held_out: float


@dataclass(frozen=True)
class Solution:
    """New weights in plain coordinates, zero outside `mask`, and how they came about."""

    weight: Double
    mask: Mask
    plain: Double
    """The old weights under the plain mask: what everything else had to beat."""
    chosen: Trial
    trials: tuple[Trial, ...]
    notes: tuple[str, ...]
    plain_method: str = "mask"
    """How the plain mask was chosen."""
