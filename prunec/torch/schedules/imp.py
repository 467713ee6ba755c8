"""Iterative magnitude pruning with rewinding (Frankle et al., arXiv 1912.05671).

The steps are `rounds` trainings of the same length. At the end of each but the last a share of what is left is masked
by magnitude, every parameter goes back to what it was after the first `rewind` of a training, and the optimiser forgets
its moments.
"""

from __future__ import annotations

import torch

from prunec.torch.schedules.base import Schedule, State, Training, magnitude


class Rewinding(Schedule):
    """After round k of n the share of the final zeros is k / (n − 1)."""

    def __init__(self, steps: int, *, rounds: int = 4, rewind: float = 0.1) -> None:
        super().__init__(steps)
        self.rounds = max(2, rounds)
        self.length = max(1, steps // self.rounds)
        self.rewind_at = max(1, round(self.length * rewind))
        self.early: dict[str, torch.Tensor] = {}

    def after_step(self, step: int, training: Training) -> None:
        module = training.views.module
        if step == self.rewind_at:
            self.early = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
        done, rest = divmod(step, self.length)
        if rest or not 0 < done < self.rounds:
            return
        training.masks = training.views.masks(magnitude, done / (self.rounds - 1))
        module.load_state_dict(self.early)
        training.optimiser.state.clear()

    def state_dict(self) -> State:
        return {"early": self.early}

    def load_state_dict(self, state: State) -> None:
        self.early = dict(state["early"])
