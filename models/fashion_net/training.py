"""An ordinary training loop for networks that classify Fashion-MNIST. Nothing in it knows of pruning.

Random flips and shifts, label smoothing .05, SGD with Nesterov momentum on batches of 128. The order of the images, the
flips and the shifts come from a generator of the caller's: the same seed on the same device gives the same weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from prunec.models.fashion_net.data import Images, normalise

BATCH, SHIFT = 128, 2
SMOOTHING = 0.05
WEIGHT_DECAY = 5e-4
WARM_UP = 0.2
"""Share of a cycle in which the step size rises."""
_BLACK = float(normalise(np.zeros(1))[0])


class LearningRate(Protocol):
    """Of torch's schedulers: called after every step."""

    def step(self) -> None: ...


def steps_of(count: int, epochs: int) -> int:
    """Calls of `optimizer.step()` that `fit` makes for `count` images."""
    return epochs * (count // BATCH)


def sgd(model: nn.Module, rate: float) -> torch.optim.SGD:
    """Weight decay for all but norms and biases."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)


def cycles(optimiser: torch.optim.Optimizer, steps: int, count: int = 1) -> LearningRate:
    """`count` times up in a straight line and down as a half cosine, over `steps` steps together."""
    length = max(1, steps // count)
    up = max(1, round(length * WARM_UP))

    def share(step: int) -> float:
        place = min(step % length, length - 1) if step < length * count else length - 1
        return (place + 1) / up if place < up else 0.5 * (1 + float(np.cos(np.pi * (place - up) / max(length - up, 1))))

    rate: LearningRate = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
    return rate


def fit(
    model: nn.Module,
    data: Images,
    optimiser: torch.optim.Optimizer,
    rate: LearningRate,
    epochs: int,
    generator: torch.Generator,
    tell: Callable[[str], None] = lambda _: None,
) -> None:
    """Train `model`, where its parameters are; images that fill no batch are left out of an epoch."""
    device = next(model.parameters()).device
    images, labels = torch.from_numpy(data.inputs).to(device), torch.from_numpy(data.labels).to(device)
    for epoch in range(epochs):
        started, total = time.monotonic(), torch.zeros((), device=device)
        model.train()
        order = torch.randperm(len(images), generator=generator)[: len(images) // BATCH * BATCH]
        for index in order.split(BATCH):
            where = index.to(device)
            x = augment(images[where], generator).contiguous(memory_format=torch.channels_last)
            loss = functional.cross_entropy(model(x), labels[where], label_smoothing=SMOOTHING)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            rate.step()
            total += loss.detach() * (BATCH / len(order))
        tell(f"epoch {epoch + 1}/{epochs}: loss {float(total):.4f}, {time.monotonic() - started:.0f} s")


def augment(batch: Tensor, generator: torch.Generator) -> Tensor:
    """Flip half of the images and shift the whole batch by up to two pixels (zeros of raw pixels come in)."""
    flip = (torch.rand(len(batch), generator=generator) < 0.5).to(batch.device)
    batch = torch.where(flip[:, None, None, None], batch.flip(3), batch)
    dy, dx = (int(d) for d in torch.randint(0, 2 * SHIFT + 1, (2,), generator=generator))
    padded = functional.pad(batch, (SHIFT,) * 4, value=_BLACK)
    return padded[:, :, dy : dy + batch.shape[2], dx : dx + batch.shape[3]]


def accuracy(model: nn.Module, data: Images) -> float:
    """Share of the images that are classified as they are labelled, in evaluation mode."""
    device = next(model.parameters()).device
    images, labels = torch.from_numpy(data.inputs).to(device), torch.from_numpy(data.labels).to(device)
    model.eval()
    with torch.no_grad():
        pairs = zip(images.split(500), labels.split(500), strict=True)
        return sum(int((model(x).argmax(1) == y).sum()) for x, y in pairs) / len(labels)
