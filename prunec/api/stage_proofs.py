"""The proof of every stage, as one record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from prunec.api.stages import Stage
from prunec.verify.block_exactness import prove_blocks
from prunec.verify.checker import FLOAT32_TOLERANCE, Outcome
from prunec.verify.exactness import exactness_record, prove, prove_groups
from prunec.verify.inputs import Feeds
from prunec.verify.records import ExactnessRecord


def prove_stages(
    stages: Sequence[Stage], *, seed: int, threads: int, spare: Feeds | None = None
) -> tuple[list[Outcome], ExactnessRecord]:
    """Every stage's cut against its reference, on inputs of its own model.

    Raises:
        GateError PC501: the numbers differ. PrunecError PC504, PC505: a model does not run on random inputs.
    """
    outcomes: list[Outcome] = []
    records: list[ExactnessRecord] = []
    for stage in stages:
        if stage.name == "depth":
            found = prove_blocks(stage.before, stage.blocks, seed=seed, threads=threads, spare=spare)
            records.append(_record(found, len(stage.blocks)))
        else:
            about = (stage.before, stage.analysis, stage.alive)
            found = prove(*about, cut_model=stage.after, seed=seed, threads=threads, spare=spare)
            groups = prove_groups(*about, seed=seed, threads=threads, spare=spare)
            records.append(exactness_record(found, stage.analysis, stage.alive, groups))
        prefix = f"{stage.name}: " if len(stages) > 1 else ""
        outcomes += [replace(outcome, trial=f"{prefix}{outcome.trial}") for outcome in found]
    return outcomes, records[0] if len(records) == 1 else _merged(records)


def _record(outcomes: Sequence[Outcome], blocks: int) -> ExactnessRecord:
    doubles = [outcome.float64 for outcome in outcomes if outcome.float64 is not None]
    return ExactnessRecord(
        class_a_max_rel=max(outcome.float32 for outcome in outcomes),
        groups_checked=0,
        passed=True,
        tolerance=FLOAT32_TOLERANCE,
        float64_max_rel=max(doubles) if len(doubles) == len(outcomes) else None,
        float64_skipped=next((o.float64_skipped for o in outcomes if o.float64_skipped is not None), None),
        seeds=tuple(outcome.seed for outcome in outcomes),
        blocks_checked=blocks,
    )


def _merged(records: Sequence[ExactnessRecord]) -> ExactnessRecord:
    """The worst of all stages. Groups are not listed: the ids of one stage mean nothing in another."""
    doubles = [record.float64_max_rel for record in records if record.float64_max_rel is not None]
    return ExactnessRecord(
        class_a_max_rel=max(record.class_a_max_rel for record in records),
        groups_checked=sum(record.groups_checked for record in records),
        passed=True,
        tolerance=FLOAT32_TOLERANCE,
        float64_max_rel=max(doubles) if len(doubles) == len(records) else None,
        float64_skipped=next((r.float64_skipped for r in records if r.float64_skipped is not None), None),
        seeds=tuple(dict.fromkeys(seed for record in records for seed in record.seeds or ())),
        compared=next((r.compared for r in records if r.compared is not None), None),
        blocks_checked=next((r.blocks_checked for r in records if r.blocks_checked is not None), None),
    )
