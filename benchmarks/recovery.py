"""Quality of real models after pruning in one shot, and after each way to recover it without labels.

    python -m benchmarks.recovery fashion-net crepe-tiny [--cases 2:4 block:4x1@0.5 flops@0.5] [--minutes 3] [--steps 1]
        [--methods bias blocks full:6] [--samples N] [--test-samples N] [--seed 0] [--threads 1] [--keep F.json]
        [--markdown F] [--blocks-from 0.2]

A case is a pattern with its level, or `flops@S`: whole channels, so that the share S of the multiply-accumulates stays.
Every method starts from the same one-shot model, which is what `prunec compile` makes without `--recover`, and trains
on the same calibration samples; the metric is on test data that calibration never saw. `--minutes` of a training are
of the processor (per thread), so that a row does not depend on what else the machine does: `processor_minutes`, beside
`minutes` on the wall. Several give the curve over time; `full:6` has minutes of its own. `--steps 1 5` adds rows that
prune in five rounds, with training after each, in the same minutes, those on the wall. `error` is ‖y − y_dense‖ over
‖y_dense‖ on held-out calibration samples; others of them decide by the loss that training lowers whether the
result is kept: where it is not, the row has the numbers of the model before training, one-shot or cut in steps.
`--blocks-from` is the one-shot error from which `full` begins with blocks, for another than its own.
Behind the one-shot row stands the best that another tool reached in one shot (`rivals`: constants, other test items).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import product
from pathlib import Path

import onnx_ir as ir

from benchmarks.kept import KeptRows
from benchmarks.rivals import BEST
from benchmarks.subject import Subject
from benchmarks.tables import line, markdown
from prunec.api.dump import Dump
from prunec.api.options import PlanOptions
from prunec.api.planning import make
from prunec.api.progress import silent
from prunec.api.pruning import prune
from prunec.api.stages import stages_of, whole
from prunec.passes.compensate.pairs import Kept
from prunec.passes.held_out import held_out_error
from prunec.plan.recovery import METHODS, RecoveryPlan
from prunec.recover import recovery

CASES = ("2:4", "block:4x1@0.5", "block:4x1@0.75", "flops@0.7", "flops@0.5")
ONE_SHOT = "one-shot"


@dataclass
class Row:
    """`value`: the metric on test data, `others` its other numbers; `steps` over all runs of the training.

    `kept`: whether it helped; `rounds` of pruning: `--steps`.
    """

    model: str
    case: str
    method: str
    minutes: float
    processor_minutes: float
    samples: int
    rounds: int
    steps: int
    metric: str
    dense: float
    value: float
    error: float
    kept: str
    others: str = ""


def tell(what: str, done: int, of: int) -> None:
    if of and "recovering" in what:
        print(f"# {what}, {done} of {of}", file=sys.stderr)


class OneShot:
    """A model that was pruned and refitted, and the dense one it comes from."""

    def __init__(self, subject: Subject, case: str) -> None:
        self.subject, self.case = subject, case
        name, _, level = case.partition("@")
        share = float(level) if level else None
        own = {"flops": share} if name == "flops" else {"pattern": name, "sparsity": share}
        self.options = PlanOptions(seed=subject.seed, threads=subject.threads, **own)  # type: ignore[arg-type]
        self.options.check()
        self.plan, _ = make(subject.opened, subject.calibration, self.options, self.options.required_budget(), silent)

    @cached_property
    def model(self) -> ir.Model:
        with Dump(None, force=False) as stages:
            subject = self.subject
            return prune(
                subject.opened, self.plan, subject.calibration, self.options, stages=stages, progress=silent
            ).model

    def row(self) -> Row:
        return self._row(ONE_SHOT, self.model, self._error(self.model))

    def recovered(self, method: str, minutes: float, rounds: int) -> Row:
        """From the one-shot model, or, in several rounds, from the dense one."""
        asked = RecoveryPlan.model_validate({"method": method, "minutes": minutes, "steps": rounds})
        pruned = self.model if rounds == 1 else None
        start, wall = time.process_time(), time.monotonic()
        found, steps, kept = self._in_rounds(asked) if pruned is None else self._trained(asked, pruned)
        spent, minutes = (time.process_time() - start) / 60, (time.monotonic() - wall) / 60
        return replace(
            self._row(method, found, self._error(found)), minutes=round(minutes, 2), processor_minutes=spent,
            rounds=rounds, steps=steps, kept="yes" if kept else "no",
        )  # fmt: skip

    def _trained(self, asked: RecoveryPlan, pruned: ir.Model) -> tuple[ir.Model, int, bool]:
        subject, threads = self.subject, self.options.threads
        steps = stages_of(subject.opened, self.plan)
        found = recovery.recover(
            steps[0].before, pruned, Kept(*whole(steps)), subject.calibration, asked, threads=threads,
            seed=self.options.seed, now=lambda: time.process_time() / threads,
            tell=lambda done, of, what: print(f"# {what}, {done} of {of}", file=sys.stderr),
        )  # fmt: skip
        for run in found.runs:
            what = f"{run.name}: {run.done} of {run.of} steps, {run.before:.4f} → {run.after:.4f}, {run.stop}"
            print(f"# {self.case}, {asked.method}, {what}", file=sys.stderr, flush=True)
        return found.model, sum(run.done for run in found.runs), found.is_kept

    def _in_rounds(self, asked: RecoveryPlan) -> tuple[ir.Model, int, bool]:
        """What goes is decided in every round, and so refitting is in the processor's time."""
        subject = self.subject
        plan = self.plan.model_copy(update={"recovery": asked})
        with Dump(None, force=False) as stages:
            found = prune(subject.opened, plan, subject.calibration, self.options, stages=stages, progress=tell)
        assert found.recovery is not None
        record = found.recovery.record
        return found.model, sum(run.done for run in record.runs), record.kept

    def _error(self, model: ir.Model) -> float:
        subject = self.subject
        return held_out_error(subject.opened.canonical, model, subject.calibration, subject.threads)

    def _row(self, method: str, model: ir.Model, error: float) -> Row:
        subject = self.subject
        values = subject.values(model)
        others = ", ".join(f"{name} {value:.3f}" for name, value in values.items() if name != subject.metric)
        return Row(
            model=subject.name, case=self.case, method=method, minutes=0.0, processor_minutes=0.0,
            samples=subject.calibration.samples, rounds=1, steps=0, metric=subject.metric, dense=subject.dense,
            value=values[subject.metric], error=error, kept="", others=others,
        )  # fmt: skip


def rows(options: argparse.Namespace) -> Iterator[Row]:
    """One-shot first, then every method with every number of minutes, case by case."""
    kept = KeptRows(Row, options.keep)

    @cache
    def subject(name: str, is_sparse: bool) -> Subject:
        return Subject(
            name, samples=options.samples, test_samples=options.test_samples, seed=options.seed,
            threads=options.threads, is_sparse=is_sparse,
        )  # fmt: skip

    for name in options.models:
        for case in options.cases:

            @cache
            def start(name: str = name, case: str = case) -> OneShot:
                return OneShot(subject(name, not case.startswith("flops")), case)

            about = (name, case, options.samples, options.test_samples, options.seed, options.threads)
            trained = (*about, *([] if options.blocks_from is None else [options.blocks_from]))
            found = kept.rows((*about, ONE_SHOT), lambda: [start().row()])
            for method, own in options.methods:
                for minutes, rounds in product(own or options.minutes, options.steps):
                    key = (*trained, method, minutes, *([] if rounds == 1 else [rounds]))
                    found += kept.rows(key, lambda: [start().recovered(method, minutes, rounds)])  # noqa: B023
            found[1:1] = beside(found[0])
            for row in found:
                print(line(row), flush=True)
                yield row


def beside(one_shot: Row) -> list[Row]:
    """The best of other tools on this model and case, where there is one; `dense` is what it had there."""
    rival = BEST.get((one_shot.model, one_shot.case))
    if rival is None:
        return []
    method = f"{rival.who}, {rival.macs:.0%} of MACs left"
    other = {"dense": rival.dense, "value": rival.value, "error": rival.error, "others": ""}
    return [replace(one_shot, method=method, samples=0, **other)]


def method_and_minutes(text: str) -> tuple[str, list[float]]:
    """`full`, or `full:6`. ValueError otherwise."""
    name, _, minutes = text.partition(":")
    if name not in METHODS:
        raise ValueError(text)
    return name, [float(minutes)] if minutes else []


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Quality after recovery without labels.")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--cases", nargs="+", default=CASES)
    parser.add_argument("--methods", nargs="+", type=method_and_minutes, default=[(name, []) for name in METHODS])
    parser.add_argument("--minutes", nargs="+", type=float, default=[3.0])
    parser.add_argument("--steps", nargs="+", type=int, default=[1])
    parser.add_argument("--blocks-from", type=float)
    parser.add_argument("--samples", type=int)
    parser.add_argument("--test-samples", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args(arguments)
    if options.blocks_from is not None:
        recovery.FAR = options.blocks_from
    found = list(rows(options))
    if options.markdown is not None:
        options.markdown.write_text(markdown(found), encoding="utf-8")


if __name__ == "__main__":
    main()
