"""fashion-net, its images, and one training with labels per way to make it smaller."""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import prunec.torch
from prunec.api import plan as make_plan
from prunec.models.fashion_net.data import TEST, TRAINING, Images, load
from prunec.models.fashion_net.network import initialised_anew, pretrained
from prunec.models.fashion_net.training import accuracy, cycles, fit, sgd, steps_of
from prunec.torch.schedules import create
from prunec.torch.schedules.imp import Rewinding

ONE_SHOT, SCRATCH = "one-shot", "scratch"
CUTTING = ("mask-sparsity", "gates")
SCRATCH_RATE = 4.0
"""Step size of a network that starts from nothing, over that of one that was trained."""
CALIBRATION = 64


@dataclass(frozen=True)
class Trained:
    """`start`: accuracy before training; `macs` and `weights`: shares of the dense network's that are not zero."""

    start: float
    value: float
    macs: float
    weights: float


class Subject:
    """The network that ships with prunec, and the training that all rows share."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.training, self.test = _first(load(TRAINING), options.images), _first(load(TEST), options.test_images)
        self.device = torch.device(options.device)
        self.example = torch.from_numpy(self.training.inputs[:2]).to(self.device)

    @cached_property
    def dense(self) -> float:
        return accuracy(self.placed(pretrained()), self.test)

    @cached_property
    def counts(self) -> tuple[int, int]:
        return _counts(self.placed(pretrained()), self.example)

    def placed(self, model: torch.nn.Module) -> torch.nn.Module:
        placed: torch.nn.Module = model.to(self.device, memory_format=torch.channels_last)
        return placed

    def as_it_is(self, epochs: int) -> Trained:
        model = self.placed(pretrained())
        return self._trained(model, sgd(model, self.options.rate), epochs)

    def cut(self, share: float, method: str, epochs: int) -> Trained:
        """Channels go, so that `share` of the multiply-accumulates stays; one-shot is refitted as in any compile."""
        images, seed, rate = torch.from_numpy(self.training.inputs[:CALIBRATION]), self.options.seed, self.options.rate
        dense, example = pretrained().eval(), self.example.cpu()
        if method in CUTTING:
            plan = make_plan(dense, example_inputs=example, flops=share, calib=images, seed=seed).plan
            model = self.placed(dense)
            optimiser, steps = sgd(model, rate), steps_of(len(self.training.labels), epochs)
            own = prunec.torch.Sparsifier(model, optimiser, plan, method, steps=steps, example_inputs=self.example)
            start = accuracy(model, self.test)
            self._fit(model, optimiser, epochs)
            return self._judged(start, self.placed(own.finalize().module))
        found = prunec.torch.prune(dense, example, flops=share, calib=images, seed=seed)
        assert found.kind == "module", [str(warning) for warning in found.warnings]
        if method == SCRATCH:
            model = self.placed(initialised_anew(found.module, seed))
            return self._trained(model, sgd(model, SCRATCH_RATE * rate), epochs)
        model = self.placed(found.module)
        return self._trained(model, sgd(model, rate), epochs)

    def sparse(self, pattern: str, level: float | None, method: str, epochs: int) -> Trained:
        """Zeros that come by the schedule `method`; for scratch those of one-shot, in fresh weights."""
        model = self.placed(pretrained())
        optimiser = sgd(model, self.options.rate)
        schedule = create(ONE_SHOT if method == SCRATCH else method, steps_of(len(self.training.labels), epochs))
        own = prunec.torch.Sparsifier(
            model, optimiser, pattern, schedule, sparsity=level, example_inputs=self.example
        )  # fmt: skip
        if method == SCRATCH:
            masks = copy.deepcopy(own.masks)
            model = self.placed(initialised_anew(pretrained(), self.options.seed))
            optimiser = sgd(model, SCRATCH_RATE * self.options.rate)
            prunec.torch.hold_zeros(optimiser, model, masks)
            return self._trained(model, optimiser, epochs)
        found = self._trained(model, optimiser, epochs, schedule.rounds if isinstance(schedule, Rewinding) else 1)
        own.finalize()
        return found

    def _trained(
        self, model: torch.nn.Module, optimiser: torch.optim.Optimizer, epochs: int, rounds: int = 1
    ) -> Trained:
        start = accuracy(model, self.test)
        self._fit(model, optimiser, epochs, rounds)
        return self._judged(start, model)

    def _fit(self, model: torch.nn.Module, optimiser: torch.optim.Optimizer, epochs: int, rounds: int = 1) -> None:
        rate = cycles(optimiser, steps_of(len(self.training.labels), epochs), rounds)
        generator = torch.Generator().manual_seed(self.options.seed)
        fit(model, self.training, optimiser, rate, epochs, generator, lambda text: print(f"# {text}", file=sys.stderr))

    def _judged(self, start: float, model: torch.nn.Module) -> Trained:
        macs, weights = _counts(model, self.example)
        return Trained(start, accuracy(model, self.test), macs / self.counts[0], weights / self.counts[1])


def _first(data: Images, count: int | None) -> Images:
    return Images(data.inputs[:count], data.labels[:count])


def _counts(model: torch.nn.Module, example: torch.Tensor) -> tuple[int, int]:
    """Multiply-accumulates with weights that are not zero, and how many weights those are; biases and norms apart."""
    layers = [part for part in model.modules() if isinstance(part, torch.nn.Conv2d | torch.nn.Linear)]
    if not layers:  # a graph that was cut: functions on parameters, without zeros
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.eval()(example[:1])
        return counter.get_total_flops() // 2, sum(own.numel() for own in model.parameters() if own.ndim > 1)
    sizes = [int((layer.weight != 0).sum()) for layer in layers]
    with torch.no_grad(), _places(layers) as places:
        model.eval()(example[:1])
    return sum(size * places[layer] for size, layer in zip(sizes, layers, strict=True)), sum(sizes)


@contextmanager
def _places(layers: list[torch.nn.Module]) -> Iterator[dict[Any, int]]:
    """How often every weight of a layer is used for one sample: once, or at every place of its map."""
    found: dict[Any, int] = {}

    def hook(layer: torch.nn.Module, _: Any, output: torch.Tensor) -> None:
        found[layer] = output[0, 0].numel()

    handles = [layer.register_forward_hook(hook) for layer in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
