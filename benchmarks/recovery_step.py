"""What a step of `--recover full` costs, by its parts, and what that would be without what was done about it.

    python -m benchmarks.recovery_step efficientnet-lite0 crepe-tiny ocr-rec minilm-l6 [--steps 8] [--markdown F]

The dense model is trained against itself: shapes are those of the zoo, and nothing has to be pruned first. Times are of
the processor, on one thread, medians over `--steps` steps; `before` are the same steps in the same process, in turns
with the others, on the graph as it came (`prunec.recover.cheaper`), columns convolved as columns, Adam of several
passes, and memory that goes back to the system as it does in the rest of a compile. `ratio` is the median of before by
after with its 10th and 90th percentile; memory that stays goes back between steps here, so a training gains a little
more. A step is a forward and a backward pass of the student, a forward pass of the dense model in ONNX Runtime
(`teacher`), and the `rest`: drawing changed samples, masks, Adam.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch.nn import functional

import prunec.models as zoo
from benchmarks.tables import line, markdown
from prunec.api.opening import open_model
from prunec.array_store import ArrayStore
from prunec.frontend.calibration import open_calibration
from prunec.heap import blocks_stay, large_blocks_apart
from prunec.passes.compensate.pairs import Kept
from prunec.recover import student as students
from prunec.recover.clock import Clock
from prunec.recover.data import Pool
from prunec.recover.end_to_end import _Distillation
from prunec.recover.losses import kinds
from prunec.recover.parameters import trainable
from prunec.recover.subject import Subject
from prunec.recover.teacher import comparable
from prunec.recover.training import Objective, _Training, scheduled
from prunec.torch.operators import conv

SAMPLES, WARM_UP, RATE = 40, 2, 1e-4


@dataclass
class Row:
    """Milliseconds of the processor."""

    model: str
    batch: int
    teacher: float
    forward: float
    backward: float
    rest: float
    after: float
    before: float
    ratio: str


@contextmanager
def as_before() -> Iterator[None]:
    """The operators and the memory that steps had."""

    def standing(x: Any, weight: Any, bias: Any, *rest: Any) -> Any:
        return functional.conv2d(x, weight, bias, *rest)

    with large_blocks_apart(), patch.object(conv, "_lying", standing):
        yield


class Steps:
    """Steps of one training; `parts` are the seconds of each part of every step."""

    def __init__(self, model: Any, kept: Kept, pool: Pool, *, is_before: bool) -> None:
        trained, self.is_before = trainable(model), is_before
        with ExitStack() as changed:
            if is_before:
                for name in ("make_cheaper", "channels_last"):
                    changed.enter_context(patch.object(students, name, lambda *_: None))
            student = students.Student(model, trained)
            places = comparable(model, model, kept, pool.feeds(pool.training[0]), 1)
            self.subject = Subject(model, model, kept, pool, student, trained, kinds(model), places, Clock(None), 0, 1)
            self.task = _Distillation(self.subject, ArrayStore(1 << 27))
        objective = Objective(self.task.loss, lambda: 1.0, self.task.trial, pool.parts)
        training = _Training(student, [*student.parameters], objective, RATE, self.subject.clock, "")
        for parameter in student.parameters.values():
            parameter.requires_grad_(True)
        self.student, self.wanted, self.optimiser = student, training.wanted, training._optimiser()
        if is_before:
            self.optimiser = torch.optim.Adam(self.optimiser.param_groups, lr=1.0, betas=(0.9, 0.99), foreach=False)
        for group in self.optimiser.param_groups:
            group["fused"] = not is_before
        scheduled(self.optimiser, RATE, 0, 100)
        self.parts: dict[str, list[float]] = defaultdict(list)

    def step(self) -> None:
        with as_before() if self.is_before else blocks_stay():
            found = dict.fromkeys(("teacher", "forward", "backward", "rest"), 0.0)
            self.optimiser.zero_grad(set_to_none=True)
            for _ in range(self.subject.pool.parts):
                batch, rng = next(self.task.drawn)
                feeds = timed(found, "rest", lambda: self.subject.pool.drawn(batch, rng))  # noqa: B023
                wanted = timed(found, "teacher", lambda: self.task.teacher(feeds))  # noqa: B023
                loss = timed(found, "forward", lambda: self.task._loss(feeds, wanted))  # noqa: B023
                timed(found, "backward", loss.backward)
            timed(found, "rest", lambda: self.student.mask_gradients(self.wanted))
            timed(found, "rest", self.optimiser.step)
            timed(found, "rest", lambda: self.student.mask_weights(self.wanted))
        for name, seconds in {**found, "all": sum(found.values())}.items():
            self.parts[name].append(seconds)

    def medians(self) -> dict[str, float]:
        return {name: 1e3 * float(np.median(own[WARM_UP:])) for name, own in self.parts.items()}


def timed(found: dict[str, float], name: str, work: Callable[[], Any]) -> Any:
    start = time.process_time()
    made = work()
    found[name] += time.process_time() - start
    return made


def row(name: str, steps: int) -> Row:
    found = zoo.get(name)
    assert found.calib is not None, f"{name} has no data"
    opened = open_model(found.path)
    calibration = open_calibration(found.calib, opened.canonical, demanded=True, seed=0, samples=SAMPLES)
    kept = Kept(opened.analysis, np.ones(opened.analysis.channel_count, bool))
    pool = Pool(opened.canonical, calibration)
    after, before = (Steps(opened.canonical, kept, pool, is_before=own) for own in (False, True))
    for number in range(WARM_UP + steps):
        for own in (after, before) if number % 2 else (before, after):
            own.step()
    pool.close()
    ratios = np.array(before.parts["all"][WARM_UP:]) / np.array(after.parts["all"][WARM_UP:])
    low, middle, high = np.quantile(ratios, [0.1, 0.5, 0.9])
    own = after.medians()
    return Row(
        name, pool.size * pool.parts, own["teacher"], own["forward"], own["backward"], own["rest"], own["all"],
        before.medians()["all"], f"{middle:.2f} [{low:.2f}, {high:.2f}]",
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="What a step of recovery costs.")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found = []
    for name in options.models:
        found.append(row(name, options.steps))
        print(line(found[-1]), flush=True)
    if options.markdown is not None:
        options.markdown.write_text(markdown(found), encoding="utf-8")


if __name__ == "__main__":
    main()
