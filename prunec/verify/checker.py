"""Run one keep set through the masked and the cut model, and name the group where they differ."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from prunec.diagnostics import GateError
from prunec.graph import Analysis
from prunec.passes.mask_channels import mask_channels
from prunec.passes.slice_channels import slice_channels
from prunec.verify import float64
from prunec.verify.culprit import cut_groups, find_culprit, only
from prunec.verify.inputs import Feeds, first_line, first_that_runs, one_image
from prunec.verify.metrics import worst_relative
from prunec.verify.once import answers
from prunec.verify.ort_errors import ORT_ERRORS
from prunec.verify.probes import at_alive, probes, with_outputs
from prunec.verify.reference import NotEvaluable, evaluate_float64
from prunec.verify.unrounded import is_quantised, without_rounding

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
    """Errors of one trial; `float64_skipped` says why there is no float64 error, `broken` why the cut did not run.

    `compared`: the model's outputs or, where those do not show what was cut, those of consumers.
    """

    trial: str
    seed: int
    float32: float
    float64: float | None = None
    float64_skipped: str | None = None
    broken: str | None = None
    compared: str = "outputs"

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
        self._dense: dict[int, dict[str, np.ndarray]] = {}

    def feeds(self, seed: int) -> Feeds:
        """Random inputs that the dense model accepts."""
        if seed not in self._feeds:
            accepts = functools.partial(answers, self.model, threads=self.threads)
            self._feeds[seed] = first_that_runs(self.model, accepts, seed, ORT_ERRORS, self.spare)
        return self._feeds[seed]

    def check(self, trial: Trial, cut: ir.Model | None = None) -> Outcome:
        """Errors of one trial. `cut` replaces a fresh cut: it is then the very model that goes into the package."""
        masked = mask_channels(self.model, self.analysis, trial.alive)
        if cut is None:
            cut = slice_channels(self.model, self.analysis, trial.alive)
        return self.compare(trial, masked, cut)

    def compare(self, trial: Trial, masked: ir.Model, cut: ir.Model) -> Outcome:
        """Errors of a model against its reference, both made from the dense one."""
        feeds = self.feeds(trial.seed)
        names: list[str] = []
        wanted = self._shown(masked, feeds, trial.seed)
        if wanted is None:
            names = probes(self.model, self.analysis, trial.alive)
            masked, cut = (with_outputs(model, names) if names else model for model in (masked, cut))
        if is_quantised(cut):
            try:
                self._run32(cut, feeds)
            except ORT_ERRORS as refusal:
                return Outcome(trial.name, trial.seed, math.inf, broken=first_line(refusal))
        outcome = self._compare(trial, without_rounding(masked), without_rounding(cut), feeds, wanted)
        return replace(outcome, compared=f"{len(names)} consumers" if names else "outputs")

    def _shown(self, masked: ir.Model, feeds: Feeds, seed: int) -> dict[str, np.ndarray] | None:
        """The masked model's outputs; None where the mask changes nothing in them: agreeing on them proves nothing."""
        if seed not in self._dense:
            self._dense[seed] = self._run32(without_rounding(self.model), feeds)
        found = self._run32(without_rounding(masked), feeds)
        return found if worst_relative(self._dense[seed], found) > 0 else None

    def _compare(
        self, trial: Trial, masked: ir.Model, cut: ir.Model, feeds: Feeds, wanted: dict[str, np.ndarray] | None
    ) -> Outcome:
        """`wanted`: the outputs of `masked` in float32 where they are known."""
        try:
            wanted = self._run32(masked, feeds) if wanted is None else wanted
            error = self._worst(trial, wanted, self._run32(cut, feeds))
        except ORT_ERRORS as refusal:
            return Outcome(trial.name, trial.seed, math.inf, broken=first_line(refusal))
        limit = self.float64_macs if error <= FLOAT32_TOLERANCE else 10 * self.float64_macs
        cost = float64.reference_cost(self.model, feeds)
        if cost > limit:
            skipped = f"one run costs {cost:.2g} MACs, over the limit of {limit:.2g}"
            return Outcome(trial.name, trial.seed, error, float64_skipped=skipped)
        try:
            own = one_image(self.model, feeds) if error <= FLOAT32_TOLERANCE else feeds
            exact = self._worst(trial, _named(masked, own), _named(cut, own))
        except NotEvaluable as reason:
            return Outcome(trial.name, trial.seed, error, float64_skipped=f"the reference refused: {reason}")
        return Outcome(trial.name, trial.seed, error, exact)

    def _worst(self, trial: Trial, masked: dict[str, np.ndarray], cut: dict[str, np.ndarray]) -> float:
        return worst_relative(at_alive(masked, self.analysis, trial.alive), cut)

    def _run32(self, model: ir.Model, feeds: Feeds) -> dict[str, np.ndarray]:
        return answers(model, feeds, self.threads)

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
    return dict(zip(names, evaluate_float64(model, feeds), strict=True))
