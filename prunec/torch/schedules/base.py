"""What a schedule does: it changes masks, and weights, after steps of the optimiser."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import torch

from prunec.diagnostics import PrunecError
from prunec.torch.channels import Channels
from prunec.torch.views import Masks, Views

State: TypeAlias = "dict[str, Any]"


def magnitude(parameter: torch.nn.Parameter) -> torch.Tensor:
    """Squares: what patterns keep adds up."""
    return parameter.detach().square()


@dataclass
class Training:
    """What a schedule sees of a training: the module's planned weights, the optimiser, the masks that hold now.

    Schedules that cut have `channels` instead of weights with a pattern.
    """

    views: Views
    optimiser: torch.optim.Optimizer
    masks: Masks
    cut: Channels | None = None

    @property
    def channels(self) -> Channels:
        assert self.cut is not None, "a schedule that does not cut asks for channels"
        return self.cut

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        return self.views.parameters()


class Schedule(ABC):
    """Over `steps` steps of the optimiser; from then on the masks are final. `cuts`: whole channels go in the end."""

    cuts: ClassVar[bool] = False

    def __init__(self, steps: int) -> None:
        if steps < 1:
            raise PrunecError("PC208", f"{steps} is not a number of steps", where="steps", hint="1 or more")
        self.steps = steps

    def start(self, training: Training) -> None:
        """Before the first step."""
        return

    def before_step(self, training: Training) -> None:
        """Before every step, when gradients are there."""
        return

    @abstractmethod
    def after_step(self, step: int, training: Training) -> None:
        """After step number `step`, counted from 1, before the masks are applied to the weights."""

    def state_dict(self) -> State:
        """What a checkpoint needs beside the masks and the number of steps."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Undo of `state_dict`."""
        return


def cubic(step: int, steps: int) -> float:
    """Share of the final zeros after `step` steps: 1 − (1 − t/T)³ (Zhu and Gupta, arXiv 1710.01878)."""
    return 1 - (1 - min(step / steps, 1)) ** 3


def is_due(step: int, steps: int, updates: int) -> bool:
    """Whether one of `updates` evenly spread changes of the masks falls on this step; the last one on the last."""
    return step <= steps and step * updates // steps > (step - 1) * updates // steps
