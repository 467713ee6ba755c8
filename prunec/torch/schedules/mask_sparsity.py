"""Regularise only the masked filters (MaskSparsity: Jiang et al., arXiv 2201.06776).

Which channels go is known beforehand, by a plan. While the network is trained, an L1 penalty is on what goes with them
and on nothing else: w ← sign(w) · max(|w| − κ_t, 0) after every step, with κ_t rising from 0 so that the largest of
them is 0 in the end. What stays is not regularised, which is where this differs from penalties on all channels, and it
takes over the work of the others before they are cut. The paper penalises the scales of batch norms; here every element
of a masked channel is, so that networks without norms can be trained the same way.
"""

from __future__ import annotations

import torch

from prunec.torch.channels import Channels
from prunec.torch.schedules.base import Schedule, State, Training

ENDS = 0.75
"""Share of the steps after which nothing is left of the masked channels; the rest is trained on without them."""
REACH = 1.5
"""All κ_t together, over the largest element when the penalty begins: training may pull the other way."""


class MaskSparsity(Schedule):
    """`begins`: the step at which the penalty starts."""

    cuts = True

    def __init__(self, steps: int) -> None:
        super().__init__(steps)
        self.begins, self.until = 0, max(1, round(steps * ENDS))
        self.largest: dict[str, float] = {}

    def start(self, training: Training) -> None:
        self.watch(training.channels)

    def watch(self, channels: Channels) -> None:
        """Take down how large what is to go is now."""
        parameters = channels.parameters()
        for name, mask in channels.masks().items():
            goes = parameters[name].detach()[~mask]
            self.largest[name] = float(goes.abs().max()) if goes.numel() else 0.0

    def after_step(self, step: int, training: Training) -> None:
        if step <= self.begins:
            return
        masks = training.channels.masks()
        if step >= self.until:
            training.masks = masks
            return
        length = self.until - self.begins
        penalty = REACH * 2 * (step - self.begins) / length**2
        with torch.no_grad():
            for name, parameter in training.channels.parameters().items():
                shrunk = parameter.sign() * (parameter.abs() - penalty * self.largest[name]).clamp_min(0)
                parameter.copy_(torch.where(masks[name].to(parameter.device), parameter, shrunk))

    def state_dict(self) -> State:
        return {"largest": self.largest}

    def load_state_dict(self, state: State) -> None:
        self.largest = dict(state["largest"])
