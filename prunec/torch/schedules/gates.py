"""Learned channel gates, polarised (Zhuang et al., "Neuron-level Structured Pruning using Polarization Regularizer").

Every channel that may go has a gate g in [0, 1], which multiplies it wherever it is read: the network computes with
ŵ = g w, where w are the columns that read the channel. Gates are learnt with the weights, under

    R(g) = Σ (t |g| − |g − mean g|)

which pushes some gates to 0 and the others away from them. In the middle of the training the channels with the smallest
gates are chosen under the plan's budget, gates are folded into the weights, and what was chosen leaves as under
`mask_sparsity`. Which channels the plan had named does not matter, only how much it cuts.

Between steps the parameters hold ŵ; w is kept here, and is what the optimiser steps on.
"""

from __future__ import annotations

import torch

from prunec.torch.schedules.base import State, Training
from prunec.torch.schedules.mask_sparsity import MaskSparsity

LEARNT = 0.4
"""Share of the steps after which gates are no longer learnt."""
POLARISE = 1.2
"""t of the regulariser."""


class LearnedGates(MaskSparsity):
    """`rate`: of a gate's steps (Adam); `strength` of the regulariser, over the mean gradient of the loss by a gate."""

    def __init__(self, steps: int, *, rate: float = 0.02, strength: float = 1.0) -> None:
        super().__init__(steps)
        self.rate, self.strength = rate, strength
        self.begins = max(1, min(round(steps * LEARNT), self.until - 1))
        self.gates = torch.zeros(0)
        self.moments: tuple[torch.Tensor, torch.Tensor] = (self.gates, self.gates)
        self.columns: dict[str, torch.Tensor] = {}
        self.latent: dict[str, torch.Tensor] = {}

    def start(self, training: Training) -> None:
        channels = training.channels
        own = channels.columns()
        self.columns = {name: columns for name, columns in own.items() if bool((columns >= 0).any())}
        device = next(iter(self.columns.values())).device
        self.gates = torch.ones(channels.count, device=device)
        self.moments = (torch.zeros_like(self.gates), torch.zeros_like(self.gates))
        self.latent = self._now(training)

    def before_step(self, training: Training) -> None:
        """Gradients of ŵ become gradients of w and of the gates; w is what is stepped on."""
        if not self.latent:
            return
        gradient = torch.zeros_like(self.gates)
        parameters = training.channels.parameters()
        with torch.no_grad():
            for name, columns in self.columns.items():
                parameter, has_gate = parameters[name], columns >= 0
                if parameter.grad is not None:
                    by_gate = (parameter.grad * self.latent[name])[has_gate]
                    gradient.index_add_(0, columns[has_gate], by_gate.to(gradient.dtype))
                    parameter.grad.mul_(self._spread(columns))
                parameter.copy_(self.latent[name])
            self._learn(gradient)

    def after_step(self, step: int, training: Training) -> None:
        if self.latent:
            parameters = training.channels.parameters()
            self.latent = self._now(training)
            with torch.no_grad():
                for name, columns in self.columns.items():
                    parameters[name].mul_(self._spread(columns))
            if step >= self.begins:
                self.latent = {}
                training.channels.decide(self.gates.double().cpu().numpy())
                self.watch(training.channels)
        super().after_step(step, training)

    def _learn(self, gradient: torch.Tensor) -> None:
        """One step of Adam on the gates that there are."""
        used = torch.unique(torch.cat([columns[columns >= 0] for columns in self.columns.values()]))
        gates, own = self.gates[used], gradient[used]
        pushed = POLARISE * gates.sign() - (gates - gates.mean()).sign()
        own = own + self.strength * own.abs().mean() * pushed
        first, second = self.moments
        first[used] = 0.9 * first[used] + 0.1 * own
        second[used] = 0.99 * second[used] + 0.01 * own.square()
        change = first[used] / (second[used].sqrt() + 1e-12)
        self.gates[used] = (gates - self.rate * change).clamp(0.0, 1.0)

    def _spread(self, columns: torch.Tensor) -> torch.Tensor:
        """The gate of every element of a weight; 1 where there is none."""
        return torch.where(columns >= 0, self.gates[columns.clamp_min(0)], 1.0)

    def _now(self, training: Training) -> dict[str, torch.Tensor]:
        parameters = training.channels.parameters()
        return {name: parameters[name].detach().clone() for name in self.columns}

    def state_dict(self) -> State:
        return {**super().state_dict(), "gates": self.gates, "moments": self.moments, "latent": self.latent}

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        self.gates, self.latent = state["gates"], dict(state["latent"])
        first, second = state["moments"]
        self.moments = (first, second)
