"""Prune and regrow (GraNet: Liu et al., arXiv 2106.10404).

The share of zeros rises as in gradual magnitude pruning. At every change a share r of what is left goes on top, and as
much grows back where the gradient is largest: r falls from `regrow` to 0 as a half cosine. What grows back starts at 0.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from prunec.torch.schedules.base import Training, cubic, is_due, magnitude
from prunec.torch.schedules.gmp import Gradual


class PruneAndRegrow(Gradual):
    """`regrow`: the share of the zeros' number that is exchanged at first."""

    def __init__(self, steps: int, *, updates: int = 20, regrow: float = 0.5) -> None:
        super().__init__(steps, updates=updates)
        self.regrow = regrow

    def after_step(self, step: int, training: Training) -> None:
        if not is_due(step, self.until, self.updates):
            return
        share = cubic(step, self.until)
        exchanged = self.regrow * 0.5 * (1 + math.cos(math.pi * step / self.until))
        views = training.views
        sizes = views.flat(magnitude)
        survivors = views.joined(views.masks(sizes, share + (1 - share) * exchanged))
        gradients = views.flat(_gradient)
        wanted = np.where(survivors, 2 + sizes / max(sizes.max(), 1e-30), gradients / max(gradients.max(), 1e-30))
        training.masks = views.masks(wanted.astype(np.float32), share)


def _gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    """Its squares; a parameter without one wants nothing back."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.detach().square()
