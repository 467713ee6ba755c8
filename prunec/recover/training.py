"""One run of training: Adam with a step size relative to every tensor, watched on samples of its own.

The step size of a tensor is `rate` times the root mean square of its entries: a rate says by what share a weight may
change in one step, whatever the scale that a folded norm left it. A rate is made smaller by the root of the error where
that is small, as the noise of Adam's steps would otherwise be larger than what there is to mend. It rises over the
first steps and falls as a half cosine. Every twentieth of the schedule the watched error is found; the best state is
kept, the one before training among them, and ten checks in a row without progress end the run. What diverges starts
again from the best state at a quarter of the rate, twice at most.

A rate is tried before it is taken: some of the steps go to it, and to a quarter of it where it does harm, and so on,
all from the same state. A few steps tell too large a rate from others but no more than that: in the long run larger
rates win, also those that do a little harm at first. Where no rate is harmless the one with the smallest error is
taken, and where one that was taken gives nothing, a quarter of it has what is left of the steps.

How many steps the schedule has is found by timing a few of them, or given by a plan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from prunec.diagnostics import PrunecError
from prunec.plan.recovery import RecoveryRun
from prunec.recover.clock import Clock
from prunec.recover.student import State, Student

Stop = Literal["finished", "no progress", "time", "interrupted", "diverged", "as planned"]
WARM_UP, CHECKS, PATIENCE = 0.05, 20, 10
DIVERGED, LARGE = 3.0, 0.3
"""Times the error before training, or times a large one if that is more: what was good may get worse at first."""
FALLS = 2
TIMED = 5
TRIED, TRIAL = tuple(4.0**-i for i in range(5)), 32
"""Shares of the rate, and the part of the steps that goes to each: one in so many."""
HARMLESS = 1.25
"""Times the error before, after a trial."""
FEWEST_TRIED, FEWEST_TO_TRY = 4, 40
"""Steps that tell rates apart, and steps of which some go to that; where there are fewer the rate stays."""
FEWEST, MOST_STEPS = 20, 20000
LEAST_SCALE = 1e-4
USUAL = 0.25
"""A watched error from which on the full rate is taken."""


@dataclass(frozen=True)
class Objective:
    """`loss`: of the next batch of training, with gradients; `watched`: a number on the watched samples.

    `trial`: a loss that costs what `loss` does and draws nothing from its stream, to be timed; of the batch that is so
    far (from 0 to below 1) into the training data, as texts of other lengths cost something else. A step is made on
    the mean gradient of `parts` batches.
    """

    loss: Callable[[], torch.Tensor]
    watched: Callable[[], float]
    trial: Callable[[float], torch.Tensor]
    parts: int = 1


@dataclass(frozen=True)
class Run:
    """What a run did. Errors are those of `Objective.watched`; `after` is that of the state that was kept."""

    name: str
    of: int
    done: int
    before: float
    after: float
    stop: Stop

    def planned(self) -> RecoveryRun:
        return RecoveryRun(of=self.of, done=self.done)


@dataclass(frozen=True)
class Budget:
    """Seconds for one run, or the number of steps that a plan has for it; never more than `most` steps."""

    seconds: float | None
    planned: RecoveryRun | None = None
    most: int = MOST_STEPS


def train(
    student: Student, wanted: Sequence[str], objective: Objective, rate: float, budget: Budget, clock: Clock, name: str
) -> Run:
    """Train the parameters `wanted` and leave `student` in the best state that was seen. PrunecError PC346."""
    return _Training(student, wanted, objective, rate, clock, name).run(budget)


class _Training:
    def __init__(
        self, student: Student, wanted: Sequence[str], objective: Objective, rate: float, clock: Clock, name: str
    ) -> None:
        self.student, self.wanted, self.objective = student, list(wanted), objective
        self.clock, self.name = clock, name
        self.best: State = student.state(wanted)
        self.before = self.best_error = objective.watched()
        if not math.isfinite(self.before):
            raise not_finite("the samples that training is watched on")
        self.rate = rate * min(1.0, math.sqrt(self.before / USUAL))

    def run(self, budget: Budget) -> Run:
        started = self.clock.now()
        for parameter in self._parameters():
            parameter.requires_grad_(True)
        try:
            of = budget.planned.of if budget.planned else self._affordable(budget, started)
            limit = budget.planned.done if budget.planned else of
            end = math.inf if budget.planned or budget.seconds is None else started + budget.seconds
            done, stop = self._train(of, limit, end)
        finally:
            for parameter in self._parameters():
                parameter.requires_grad_(False)
                parameter.grad = None
        self.student.restore(self.best)
        return Run(self.name, of, done, self.before, self.best_error, stop)

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [self.student.parameters[name] for name in self.wanted]

    def _affordable(self, budget: Budget, started: float) -> int:
        """How many steps, with the checks between them, fit into the time that is left of the budget."""
        if budget.seconds is None:
            return budget.most
        self.objective.trial(0.0).backward()  # once for what only the first pass costs
        start = self.clock.now()
        for number in range(TIMED):
            self.objective.trial(number / TIMED).backward()
        seconds = (self.clock.now() - start) / TIMED * self.objective.parts
        start = self.clock.now()
        self.objective.watched()
        check = self.clock.now() - start
        left = started + budget.seconds - self.clock.now() - (CHECKS + len(TRIED)) * check
        steps = int(left / max(seconds * 1.1, 1e-6))
        return max(FEWEST, min(steps, budget.most))

    def _train(self, of: int, limit: int, end: float) -> tuple[int, Stop]:
        """Up to `limit` steps of `of`; how many were made, and why no more."""
        done, rate, stop = self._tried(of, limit, end) if of >= FEWEST_TO_TRY else (0, self.rate, None)
        while stop is None:
            self.clock.tell(done, of, f"{self.name}, a rate of {rate:.2g}")
            begun = self.best_error
            made, stop, _ = self._descend(rate, of - done, limit - done, end)
            done, rate = done + made, rate / 4
            is_vain = stop == "no progress" and not self.best_error < begun
            if is_vain and of - done >= FEWEST_TO_TRY and done < limit:  # by `of`, so that a replay does the same
                self.student.restore(self.best)
                stop = None
        return done, stop

    def _tried(self, of: int, limit: int, end: float) -> tuple[int, float, Stop | None]:
        """Steps that went to it, the rate that was found, and why the run ends there, where it does."""
        done, best, reached, length = 0, self.rate, math.inf, max(FEWEST_TRIED, of // TRIAL)
        start = self.student.state(self.wanted)
        for rate in (self.rate * share for share in TRIED):
            self.student.restore(start)
            made, stop, error = self._descend(rate, length, min(length, limit - done), end, 1, 0)
            done += made
            if stop in ("time", "interrupted") or done == limit:
                return done, rate, stop
            if error < reached:
                best, reached = rate, error
            if error <= HARMLESS * self.before:
                best = rate
                break
        self.student.restore(self.best)
        return done, best, None

    def _descend(
        self, rate: float, of: int, limit: int, end: float, checks: int = CHECKS, falls: int = FALLS
    ) -> tuple[int, Stop, float]:
        """Up to `limit` steps of a schedule over `of`: how many were made, why no more, and the last error.

        `falls`: how often it may start again at a smaller rate.
        """
        optimiser, stale, recent, last = self._optimiser(), 0, math.inf, math.inf
        every = -(-of // checks)  # never more checks than were paid for, nor less patience than half a schedule
        for step in range(limit):
            if self.clock.was_interrupted or self.clock.now() > end:
                last = self._check()
                return step, "interrupted" if self.clock.was_interrupted else "time", last
            scheduled(optimiser, rate, step, of)
            error = self._step(optimiser)
            if error == 0 and ((step + 1) % every == 0 or step + 1 == limit):
                error = last = self._check()
                stale, recent = (0, error) if error < recent else (stale + 1, recent)
                self.clock.tell(step + 1, of, f"{self.name}, error {error:.3g}, {self.before:.3g} before")
            if not error <= DIVERGED * max(self.before, LARGE):
                if not falls:
                    return step + 1, "diverged", math.inf
                falls, stale, recent, rate = falls - 1, 0, math.inf, rate / 4
                self.student.restore(self.best)
                optimiser = self._optimiser()
            elif stale == PATIENCE:
                return step + 1, "no progress", last
        return limit, "finished" if limit == of else "as planned", last

    def _step(self, optimiser: torch.optim.Optimizer) -> float:
        """0, or NaN where the loss is not finite and nothing was changed."""
        optimiser.zero_grad(set_to_none=True)
        for _ in range(self.objective.parts):
            loss = self.objective.loss() / self.objective.parts
            if not bool(torch.isfinite(loss)):
                return math.nan
            loss.backward()
        self.student.mask_gradients(self.wanted)
        optimiser.step()
        self.student.mask_weights(self.wanted)
        return 0.0

    def _check(self) -> float:
        """The watched error now; the state is kept if it is the best."""
        error = self.objective.watched()
        if error < self.best_error:
            self.best, self.best_error = self.student.state(self.wanted), error
        return error

    def _optimiser(self) -> torch.optim.Optimizer:
        """One group per tensor, whose step size is relative to it; biases of zeros move as far as the usual tensor."""
        scales = {name: _scale(self.student.parameters[name]) for name in self.wanted}
        usual = sorted(scales.values())[len(scales) // 2]
        groups = [
            {"params": [self.student.parameters[name]], "scale": scale if scale > LEAST_SCALE else usual}
            for name, scale in scales.items()
        ]
        return torch.optim.Adam(groups, lr=1.0, betas=(0.9, 0.99), fused=True)


def not_finite(where: str) -> PrunecError:
    """PC346: without a number to begin with nothing says whether training helps."""
    hint = "look at the outputs of MODEL on the calibration data in ONNX Runtime, or leave --recover out"
    return PrunecError("PC346", f"outputs are infinite or NaN on {where}", where="--recover", hint=hint)


def scheduled(optimiser: torch.optim.Optimizer, rate: float, step: int, of: int) -> None:
    """Set the step sizes: up in a straight line, down as a half cosine."""
    up = max(1, min(int(of * WARM_UP), 100))
    share = (step + 1) / up if step < up else 0.5 * (1 + math.cos(math.pi * (step - up) / max(of - up, 1)))
    for group in optimiser.param_groups:
        group["lr"] = rate * share * group["scale"]


def _scale(parameter: torch.Tensor) -> float:
    """Root mean square of what is not zero."""
    kept = parameter.detach()[parameter.detach() != 0]
    return float(kept.square().mean().sqrt()) if kept.numel() else 0.0
