"""Proof of a cut: the dense model with the dead channels masked and the cut model give the same numbers.

    masked = mask_channels(canonical, alive)        cut = slice_channels(canonical, alive)
    error  = max over outputs of max |cut(x) − masked(x)| / max |masked(x)|

`x` is seeded and random. What is cut is checked, and `random_keeps` random keep sets beside it, so that an error which
this plan happens to avoid shows as well. In float32 (ONNX Runtime, no graph optimisations) the error has to be at most
1e-5. In float64 (ONNX's reference) it has to be at most 1e-12, where one run costs no more than `float64_macs`. A deep
network can amplify float32 rounding beyond 1e-5: then float64 decides where it is affordable, with ten times the
budget; where it is not, the check fails. Half-precision models are checked as their float32 copies.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunec.backends.onnx.session import make_session, run
from prunec.diagnostics import GateError
from prunec.graph import Analysis
from prunec.passes.mask_channels import mask_channels
from prunec.passes.slice_channels import slice_channels
from prunec.verify import float64
from prunec.verify.culprit import cut_groups, find_culprit, only
from prunec.verify.inputs import Feeds, first_line, first_that_runs
from prunec.verify.metrics import worst_relative
from prunec.verify.ort_errors import ORT_ERRORS
from prunec.verify.records import ExactnessRecord

FLOAT32_TOLERANCE = 1e-5
FLOAT64_TOLERANCE = 1e-12
FLOAT64_MACS = 1e9
"""Below this cost (about a second in the reference) every proof is done in float64 too."""


@dataclass(frozen=True)
class Trial:
    """One keep set: what it is called, which classes live, and the seed of its inputs (and of itself, if random)."""

    name: str
    alive: np.ndarray
    seed: int


@dataclass(frozen=True)
class Outcome:
    """Errors of one trial; `float64_skipped` says why there is no float64 error, `broken` why the cut did not run."""

    trial: str
    seed: int
    float32: float
    float64: float | None = None
    float64_skipped: str | None = None
    broken: str | None = None

    @property
    def passed(self) -> bool:
        """float64 decides where it was run, for there is no rounding to hide behind."""
        return self.float64 <= FLOAT64_TOLERANCE if self.float64 is not None else self.float32 <= FLOAT32_TOLERANCE

    def describe(self) -> str:
        """The finding in one sentence."""
        if self.broken is not None:
            return f"the cut model does not run: {self.broken}"
        error, tolerance = self.float32, FLOAT32_TOLERANCE
        if self.float64 is not None:
            error, tolerance = self.float64, FLOAT64_TOLERANCE
        note = f"; not decided in float64: {self.float64_skipped}" if self.float64_skipped else ""
        return f"the cut model differs from the masked one by {error:.1e}, more than {tolerance:.0e}{note}"


def check_exactness(
    canonical: ir.Model,
    analysis: Analysis,
    alive: np.ndarray,
    *,
    cut_model: ir.Model | None = None,
    seed: int,
    random_keeps: int = 1,
    threads: int = 1,
    float64_macs: float = FLOAT64_MACS,
) -> ExactnessRecord:
    """Prove the cut of the classes that are not `alive` (bool per class id); `cut_model` is what came out of it.

    Raises:
        GateError PC501: the numbers differ, with the group and its nodes.
        PrunecError PC504, PC505: the dense model cannot be run on random inputs.
    """
    outcomes = prove(
        canonical, analysis, alive, cut_model=cut_model, seed=seed, random_keeps=random_keeps, threads=threads,
        float64_macs=float64_macs,
    )  # fmt: skip
    return exactness_record(outcomes, analysis, alive)


def exactness_record(outcomes: Sequence[Outcome], analysis: Analysis, alive: np.ndarray) -> ExactnessRecord:
    """The record of a proof that passed."""
    return ExactnessRecord(
        class_a_max_rel=max(outcome.float32 for outcome in outcomes),
        groups_checked=len(cut_groups(analysis, alive)),
        passed=True,
        tolerance=FLOAT32_TOLERANCE,
    )


def prove(
    canonical: ir.Model,
    analysis: Analysis,
    alive: np.ndarray,
    *,
    cut_model: ir.Model | None = None,
    seed: int,
    random_keeps: int = 1,
    threads: int = 1,
    float64_macs: float = FLOAT64_MACS,
    spare: Feeds | None = None,
) -> list[Outcome]:
    """One passed outcome per keep set, the plan's first; raises as `check_exactness`.

    `spare` are inputs for a model that refuses random ones.
    """
    if float64.has_half_precision(canonical):
        canonical = float64.with_floats(canonical, ir.DataType.FLOAT)
        cut_model = float64.with_floats(cut_model, ir.DataType.FLOAT) if cut_model is not None else None
    checker = Checker(canonical, analysis, threads, float64_macs, spare)
    trials = [Trial("plan", alive, seed), *(random_trial(analysis, seed + 1 + i) for i in range(random_keeps))]
    outcomes = []
    for number, trial in enumerate(trials):
        outcome = checker.check(trial, cut_model if number == 0 else None)
        if not outcome.passed:
            raise checker.refusal(trial, outcome)
        outcomes.append(outcome)
    return outcomes


def random_trial(analysis: Analysis, seed: int) -> Trial:
    """Every free group keeps a random part of its channels, from one channel to all but one."""
    rng = np.random.default_rng(seed)
    alive = np.ones(analysis.channel_count, bool)
    for group in analysis.groups:
        if group.pinned is None and group.size > 1:
            dead = rng.choice(group.size, int(rng.integers(1, group.size)), replace=False)
            alive[group.channels[dead]] = False
    while empty := analysis.empty_axes(alive):
        for classes in empty:
            alive[classes[0]] = True
    return Trial(f"random keep set, seed {seed}", alive, seed)


class Checker:
    """Runs trials of one canonical model."""

    def __init__(
        self, canonical: ir.Model, analysis: Analysis, threads: int, float64_macs: float, spare: Feeds | None
    ) -> None:
        self.model = canonical
        self.analysis = analysis
        self.threads = threads
        self.float64_macs = float64_macs
        self.spare = spare
        self._feeds: dict[int, Feeds] = {}

    def feeds(self, seed: int) -> Feeds:
        """Random inputs that the dense model accepts."""
        if seed not in self._feeds:
            session = make_session(self.model, threads=self.threads, optimise=False)
            accepts = functools.partial(run, session)
            self._feeds[seed] = first_that_runs(self.model, accepts, seed, ORT_ERRORS, self.spare)
        return self._feeds[seed]

    def check(self, trial: Trial, cut: ir.Model | None = None) -> Outcome:
        """Errors of one trial. `cut` replaces a fresh cut: it is then the very model that goes into the package."""
        feeds = self.feeds(trial.seed)
        masked = mask_channels(self.model, self.analysis, trial.alive)
        if cut is None:
            cut = slice_channels(self.model, self.analysis, trial.alive)
        expected = self._run32(masked, feeds)
        try:
            error = worst_relative(expected, self._run32(cut, feeds))
        except ORT_ERRORS as refusal:
            return Outcome(trial.name, trial.seed, math.inf, broken=first_line(refusal))
        limit = self.float64_macs if error <= FLOAT32_TOLERANCE else 10 * self.float64_macs
        cost = float64.reference_cost(self.model, feeds)
        if cost > limit:
            skipped = f"one run costs {cost:.2g} MACs, over the limit of {limit:.2g}"
            return Outcome(trial.name, trial.seed, error, float64_skipped=skipped)
        try:
            exact = worst_relative(_named(masked, feeds), _named(cut, feeds))
        except float64.NotEvaluable as reason:
            return Outcome(trial.name, trial.seed, error, float64_skipped=f"the reference refused: {reason}")
        return Outcome(trial.name, trial.seed, error, exact)

    def _run32(self, model: ir.Model, feeds: Feeds) -> dict[str, np.ndarray]:
        return run(make_session(model, threads=self.threads, optimise=False), feeds)

    def fails(self, trial: Trial, groups: Sequence[str]) -> bool:
        """Whether cutting only `groups` as the trial does is wrong already."""
        alive = only(self.analysis, trial.alive, groups)
        return not self.check(Trial(trial.name, alive, trial.seed)).passed

    def refusal(self, trial: Trial, outcome: Outcome) -> GateError:
        """Name the group that makes the difference."""
        found = find_culprit([g.id for g in cut_groups(self.analysis, trial.alive)], lambda ids: self.fails(trial, ids))
        names = {g.id: sorted({m.node for m in g.members}) for g in self.analysis.groups if g.id in found}
        where = "; ".join(f"{group}: {', '.join(nodes[:6])}" for group, nodes in names.items()) or None
        return GateError(
            "PC501",
            f"{outcome.describe()} ({trial.name})",
            where=where,
            hint=f"leave the group out with --exclude {next(iter(names.values()), ['NODE'])[0]}, and report this model",
        )


def _named(model: ir.Model, feeds: Feeds) -> dict[str, np.ndarray]:
    names = [str(value.name) for value in model.graph.outputs]
    return dict(zip(names, float64.evaluate_float64(model, feeds), strict=True))
