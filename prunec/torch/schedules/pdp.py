"""Soft masks without parameters of their own (PDP: Cho et al., arXiv 2305.11203).

The network computes with ŵ = m(w) w, where m = σ((w²/t² − 1)/τ) and t² lies half way between the saliencies of what
stays and of what goes under the pattern, with a share of zeros that rises as in gradual magnitude pruning. Gradients go
through the mask, dŵ/dw = m + 2 (w²/t²)/τ · m (1 − m), so a weight near t can decide for itself. In the end the mask is
the hard one.

Between steps the parameters hold ŵ; w is kept here, and is what the optimiser steps on.
"""

from __future__ import annotations

import torch

from prunec.diagnostics import PrunecError
from prunec.patterns.nm import NM
from prunec.torch.schedules.base import Schedule, State, Training, cubic, is_due, magnitude
from prunec.torch.views import Masks

ENDS = 0.75
"""Share of the steps after which the masks are hard."""


class SoftMasks(Schedule):
    """`updates` changes of t; `temperature` is τ."""

    def __init__(self, steps: int, *, updates: int = 40, temperature: float = 0.2) -> None:
        super().__init__(steps)
        self.updates, self.temperature = updates, temperature
        self.until = max(1, round(steps * ENDS))
        self.latent: dict[str, torch.Tensor] = {}
        self.thresholds: Masks = {}

    def start(self, training: Training) -> None:
        """PrunecError PC225: the pattern ties weights together, and a soft mask is for one at a time."""
        for view in training.views.views:
            if view.pattern.name != "unstructured" and not isinstance(view.pattern, NM):
                hint = "take unstructured or N:M, or another schedule"
                message = f"soft masks are for single weights, and {view.pattern} ties them together"
                raise PrunecError("PC225", message, where="pdp", hint=hint)
        self._keep(training)

    def before_step(self, training: Training) -> None:
        """Gradients of ŵ become gradients of w, and w is what is stepped on."""
        with torch.no_grad():
            for name, parameter in training.parameters().items():
                if name not in self.latent:
                    continue
                own = self.latent[name]
                mask, ratio = self._mask(name, own)
                if parameter.grad is not None:
                    parameter.grad.mul_(mask + 2 * ratio / self.temperature * mask * (1 - mask))
                parameter.copy_(own)

    def after_step(self, step: int, training: Training) -> None:
        if step > self.until:
            return
        if step == self.until:
            self.latent = {}
            training.masks = training.views.masks(magnitude)
            return
        if is_due(step, self.until, self.updates):
            self.thresholds = training.views.thresholds(magnitude, cubic(step, self.until))
        self._keep(training)
        with torch.no_grad():
            for name, parameter in training.parameters().items():
                parameter.mul_(self._mask(name, parameter)[0])

    def _keep(self, training: Training) -> None:
        self.latent = {name: parameter.detach().clone() for name, parameter in training.parameters().items()}

    def _mask(self, name: str, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """m and w²/t²; 1 and 0 where nothing goes yet."""
        threshold = self.thresholds.get(name)
        if threshold is None:
            return torch.ones_like(weight), torch.zeros_like(weight)
        is_open = threshold == 0
        ratio = torch.where(is_open, 0.0, weight.square() / torch.where(is_open, 1.0, threshold))
        mask = torch.where(is_open, 1.0, torch.sigmoid((ratio - 1) / self.temperature))
        return mask, ratio

    def state_dict(self) -> State:
        return {"latent": self.latent, "thresholds": self.thresholds}

    def load_state_dict(self, state: State) -> None:
        self.latent, self.thresholds = dict(state["latent"]), dict(state["thresholds"])
