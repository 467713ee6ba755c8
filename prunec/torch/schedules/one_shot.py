"""All zeros at once, before the first step: the baseline that every schedule is compared with."""

from __future__ import annotations

from prunec.torch.schedules.base import Schedule, Training, magnitude


class OneShot(Schedule):
    """Magnitude pruning, then training on."""

    def start(self, training: Training) -> None:
        training.masks = training.views.masks(magnitude)

    def after_step(self, step: int, training: Training) -> None:
        """The masks hold from the start."""
