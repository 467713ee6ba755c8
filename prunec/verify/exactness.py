"""Proof of a cut: the dense model with the dead channels masked and the cut model give the same numbers.

    masked = mask_channels(canonical, alive)        cut = slice_channels(canonical, alive)
    error  = max over outputs of max |cut(x) − masked(x)| / max |masked(x)|

`x` is seeded and random. What is cut is checked, and `random_keeps` random keep sets beside it, so that an error which
this plan happens to avoid shows as well. In float32 (ONNX Runtime, no graph optimisations) the error has to be at most
1e-5. In float64 (ONNX's reference) it has to be at most 1e-12, where one run costs no more than `float64_macs`. A deep
network can amplify float32 rounding beyond 1e-5: then float64 decides where it is affordable, with ten times the
budget; where it is not, the check fails. Where the outputs do not show the cut (see `probes`), the outputs of consumers
are compared. Half-precision models are checked as their float32 copies; quantised ones are run as they are, and
compared with the rounding of their activations taken out (`unrounded` says why).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from prunec.graph import Analysis
from prunec.graph.cost import model_macs
from prunec.verify import float64
from prunec.verify.checker import FLOAT32_TOLERANCE, FLOAT64_MACS, FLOAT64_TOLERANCE, Checker, Outcome, Trial
from prunec.verify.culprit import cut_groups, only
from prunec.verify.inputs import Feeds
from prunec.verify.records import ExactnessRecord, GroupError

GROUP_MACS = 2e9
GROUP_LIMIT = 64
"""Up to these, every group is checked on its own as well."""


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


def exactness_record(
    outcomes: Sequence[Outcome],
    analysis: Analysis,
    alive: np.ndarray,
    groups: tuple[GroupError, ...] | None = None,
) -> ExactnessRecord:
    """The record of a proof that passed."""
    return record_of(outcomes, len(cut_groups(analysis, alive)), groups)


def record_of(
    outcomes: Sequence[Outcome],
    groups_checked: int,
    groups: tuple[GroupError, ...] | None = None,
    blocks_checked: int | None = None,
) -> ExactnessRecord:
    """The record of proofs that passed, of one cut or of several in a row."""
    in_float64 = [outcome.float64 for outcome in outcomes if outcome.float64 is not None]
    in_float32 = max(outcome.float32 for outcome in outcomes)
    by_float32 = in_float32 <= FLOAT32_TOLERANCE
    return ExactnessRecord(
        class_a_max_rel=in_float32 if by_float32 else max(in_float64),
        groups_checked=groups_checked,
        passed=True,
        tolerance=FLOAT32_TOLERANCE if by_float32 else FLOAT64_TOLERANCE,
        decided_in="float32" if by_float32 else "float64",
        float32_max_rel=in_float32,
        float64_max_rel=max(in_float64) if len(in_float64) == len(outcomes) else None,
        float64_skipped=next((o.float64_skipped for o in outcomes if o.float64_skipped is not None), None),
        seeds=tuple(outcome.seed for outcome in outcomes),
        compared=next((o.compared for o in outcomes if o.compared != "outputs"), None),
        groups=groups or None,
        blocks_checked=blocks_checked,
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


def prove_groups(
    canonical: ir.Model,
    analysis: Analysis,
    alive: np.ndarray,
    *,
    seed: int,
    threads: int = 1,
    spare: Feeds | None = None,
    macs: float = GROUP_MACS,
) -> tuple[GroupError, ...] | None:
    """The float32 error of each cut group alone; None where all the runs together would cost more than `macs`.

    Raises:
        GateError PC501: the numbers differ, as in `prove`.
    """
    groups = cut_groups(analysis, alive)
    if len(groups) > GROUP_LIMIT or 2 * len(groups) * model_macs(canonical) > macs:
        return None
    if float64.has_half_precision(canonical):
        canonical = float64.with_floats(canonical, ir.DataType.FLOAT)
    quick, thorough = (Checker(canonical, analysis, threads, limit, spare) for limit in (0.0, FLOAT64_MACS))
    errors = []
    for group in groups:
        trial = Trial(f"{group.id} alone", only(analysis, alive, [group.id]), seed)
        outcome = quick.check(trial)
        if not outcome.passed and not thorough.check(trial).passed:
            raise thorough.refusal(trial, outcome)
        errors.append(GroupError(id=group.id, kind=group.kind, max_rel=outcome.float32, passed=True))
    return tuple(errors)


def random_trial(analysis: Analysis, seed: int) -> Trial:
    """Every free group keeps a random part of its channels, from one channel (k experts) to all but one."""
    rng = np.random.default_rng(seed)
    alive = np.ones(analysis.channel_count, bool)
    for group in analysis.groups:
        most = group.size - (group.experts or 1)
        if group.pinned is None and most > 0:
            dead = rng.choice(group.size, int(rng.integers(1, most + 1)), replace=False)
            alive[group.channels[dead]] = False
    while empty := analysis.empty_axes(alive):
        for classes in empty:
            alive[classes[0]] = True
    return Trial(f"random keep set, seed {seed}", alive, seed)
