"""Sparse model soups (Zimmer et al., arXiv 2306.16788): the mean of trainings that share their zeros.

Several trainings start from the same pruned model and differ in the order and the changes of their samples. They share
their zeros, so their mean has them too, and it often generalises better than each. The mean is greedy: the best
training first, the others in the order of their error, each taken in only if the mean with it is better on samples that
none was trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

State = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Soup:
    """`taken`: numbers of the states in the mean, the best first; `error`: of the mean, `single` of the best alone."""

    state: dict[str, torch.Tensor]
    taken: tuple[int, ...]
    error: float
    single: float


def mean(states: Sequence[State]) -> dict[str, torch.Tensor]:
    """Of tensors of floating-point numbers; the others are those of the first state."""
    first = states[0]
    return {
        name: torch.stack([state[name] for state in states]).mean(0) if tensor.is_floating_point() else tensor.clone()
        for name, tensor in first.items()
    }


def greedy(states: Sequence[State], errors: Sequence[float], judge: Callable[[State], float]) -> Soup:
    """`errors`: of every state by itself, as `judge` finds them: smaller is better. At least one state."""
    order = sorted(range(len(states)), key=lambda i: errors[i])
    taken, best = [order[0]], errors[order[0]]
    kept = dict(states[order[0]])
    for number in order[1:]:
        tried = mean([states[i] for i in (*taken, number)])
        error = judge(tried)
        if error < best:
            taken, best, kept = [*taken, number], error, tried
    return Soup(kept, tuple(taken), best, errors[order[0]])
