"""Whether a training helped: the samples that judge it, before and after, one by one.

    d_i = loss of sample i after − before,   beyond chance where  mean d + t · s/√n < 0

with Student's t for 90 % on one side and n − 1 degrees of freedom. The mean decides; whether it says more than chance
would is what the user is told, as a few samples differ by several percent whatever is done.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from scipy import stats

from prunec.recover.losses import Kind, divergence, output_loss, spread_of

CONFIDENCE = 0.9
FEWEST = 4
"""Samples that show anything about chance."""


def sample_losses(
    found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], outputs: Mapping[str, Kind], count: int
) -> np.ndarray:
    """`output_loss` of each sample of a batch of `count`, float64 [count]; the mean is that of the batch.

    Where an output's leading axis is not that of the samples, the batch is as one sample: float64 [1].
    """
    if any(wanted[name].ndim == 0 or len(wanted[name]) != count for name in outputs):
        return np.array([float(output_loss(found, wanted, outputs))])
    total = torch.zeros(count, dtype=torch.float64)
    for name, kind in outputs.items():
        y, t = found[name], wanted[name]
        total += (y - t).square().reshape(count, -1).sum(1).double() * (count / spread_of(t).double())
        if kind != "plain":
            total += torch.stack([divergence(y[i], t[i], kind) for i in range(count)]).double()
    return np.asarray((total / len(outputs)).numpy())


def helps(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether the mean of the losses of the same samples, float64 [samples], fell."""
    return bool(after.mean() < before.mean())


def is_beyond_chance(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether it fell by more than other samples of the kind would let it by chance."""
    apart = after - before
    if len(apart) < FEWEST or not np.isfinite(apart).all():
        return False
    bound = stats.t.ppf(CONFIDENCE, len(apart) - 1) * apart.std(ddof=1) / np.sqrt(len(apart))
    return bool(apart.mean() + bound < 0)
