"""The proof of every stage, as one record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from prunec.api.stages import Stage
from prunec.verify.block_exactness import prove_blocks
from prunec.verify.checker import Outcome
from prunec.verify.culprit import cut_groups
from prunec.verify.exactness import prove, prove_groups, record_of
from prunec.verify.inputs import Feeds
from prunec.verify.records import ExactnessRecord, GroupError


def prove_stages(
    stages: Sequence[Stage], *, seed: int, threads: int, spare: Feeds | None = None
) -> tuple[list[Outcome], ExactnessRecord]:
    """Every stage's cut against its reference, on inputs of its own model.

    Raises:
        GateError PC501: the numbers differ. PrunecError PC504, PC505: a model does not run on random inputs.
    """
    outcomes: list[Outcome] = []
    groups: tuple[GroupError, ...] | None = None
    for stage in stages:
        about = (stage.before, stage.analysis, stage.alive)
        if stage.name == "depth":
            found = prove_blocks(stage.before, stage.blocks, seed=seed, threads=threads, spare=spare)
        else:
            found = prove(*about, cut_model=stage.after, seed=seed, threads=threads, spare=spare)
            groups = prove_groups(*about, seed=seed, threads=threads, spare=spare)
        prefix = f"{stage.name}: " if len(stages) > 1 else ""
        outcomes += [replace(outcome, trial=f"{prefix}{outcome.trial}") for outcome in found]
    checked = sum(len(cut_groups(stage.analysis, stage.alive)) for stage in stages)
    blocks = sum(len(stage.blocks) for stage in stages)
    listed = groups if len(stages) == 1 else None  # the ids of one stage mean nothing in another
    return outcomes, record_of(outcomes, checked, listed, blocks or None)
