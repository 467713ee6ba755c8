"""Gradual magnitude pruning (Zhu and Gupta, arXiv 1710.01878).

The share of zeros rises as s_t = s_f (1 − (1 − t/T)³): fast while there is much that nobody misses, slowly in the end.
What is zero gets no gradient, and comes back only if a later mask wants it.
"""

from __future__ import annotations

from prunec.torch.schedules.base import Schedule, Training, cubic, is_due, magnitude

ENDS = 0.75
"""Share of the steps after which all zeros are there, so that the rest is trained with the final masks."""


class Gradual(Schedule):
    """`updates` changes of the masks, evenly over the first three quarters of the steps."""

    def __init__(self, steps: int, *, updates: int = 20) -> None:
        super().__init__(steps)
        self.updates = updates
        self.until = max(1, round(steps * ENDS))

    def after_step(self, step: int, training: Training) -> None:
        if is_due(step, self.until, self.updates):
            training.masks = training.views.masks(magnitude, cubic(step, self.until))
