"""Annealed decay (the sparse half of AST: Huang et al., arXiv 2407.20584).

Nothing is cut off at first: after every step the weights that the mask of the moment does without lose a share λ of
themselves, which rises from 0, while masks are found anew. A weight that training wants stays large and gets back into
the mask; what has decayed is cut to exact zeros in the end. The other half of AST is a loss against the dense model,
which is the loop's own.
"""

from __future__ import annotations

import torch

from prunec.torch.schedules.base import Schedule, State, Training, is_due, magnitude
from prunec.torch.views import Masks

SETTLES, ENDS = 0.5, 0.75
"""Shares of the steps until which masks change, and after which the masks are applied."""
DECAY = 10.0
"""λ at its end, times the number of steps that it takes: what is not wanted falls by a factor of e^3."""


class AnnealedDecay(Schedule):
    """`updates` changes of the masks in the first half; λ_t = DECAY/T · (t/T)², T steps before they are applied."""

    def __init__(self, steps: int, *, updates: int = 40) -> None:
        super().__init__(steps)
        self.updates = updates
        self.settled, self.until = max(1, round(steps * SETTLES)), max(1, round(steps * ENDS))
        self.wanted: Masks = {}

    def start(self, training: Training) -> None:
        self.wanted = training.views.masks(magnitude)

    def after_step(self, step: int, training: Training) -> None:
        if is_due(step, self.settled, self.updates):
            self.wanted = training.views.masks(magnitude)
        lost = min(DECAY / self.until * min(step / self.until, 1.0) ** 2, 1.0)
        with torch.no_grad():
            for name, parameter in training.parameters().items():
                parameter.mul_(torch.where(self.wanted[name], 1.0, 1.0 - lost))
        if step >= self.until:
            training.masks = self.wanted

    def state_dict(self) -> State:
        return {"wanted": self.wanted}

    def load_state_dict(self, state: State) -> None:
        self.wanted = dict(state["wanted"])
