"""Proof of removed blocks: the model without them and the model in which they contribute zero give the same numbers.

The tolerances and the fall-backs are those of `exactness`. What the plan removes is checked, and a random half of all
blocks beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from prunec.diagnostics import GateError
from prunec.graph import analyse
from prunec.graph.branches import Block, find_blocks
from prunec.passes.remove_blocks import mask_blocks, remove_blocks
from prunec.verify import float64
from prunec.verify.checker import FLOAT64_MACS, Checker, Outcome, Trial
from prunec.verify.inputs import Feeds


def prove_blocks(
    model: ir.Model,
    blocks: Sequence[Block],
    *,
    seed: int,
    threads: int = 1,
    float64_macs: float = FLOAT64_MACS,
    spare: Feeds | None = None,
) -> list[Outcome]:
    """One passed outcome per set of blocks, the given one first. `model` is canonical, `spare` as in `exactness.prove`.

    Raises:
        GateError PC501: the numbers differ; PrunecError PC504, PC505: the model does not run on random inputs.
    """
    if float64.has_half_precision(model):
        model = float64.with_floats(model, ir.DataType.FLOAT)
    analysis = analyse(model)
    checker = Checker(model, analysis, threads, float64_macs, spare)
    whole = np.ones(analysis.channel_count, bool)
    outcomes = []
    for name, number, chosen in (("blocks of the plan", seed, blocks), _random(model, seed + 1)):
        outcome = checker.compare(Trial(name, whole, number), mask_blocks(model, chosen), remove_blocks(model, chosen))
        if not outcome.passed:
            where = ", ".join(block.name for block in chosen[:6])
            raise GateError("PC501", f"{outcome.describe()} ({name})", where=where, hint="report this model")
        outcomes.append(outcome)
    return outcomes


def _random(model: ir.Model, seed: int) -> tuple[str, int, list[Block]]:
    blocks = find_blocks(model)
    take = np.random.default_rng(seed).random(len(blocks)) < 0.5
    return f"random blocks, seed {seed}", seed, [b for b, taken in zip(blocks, take, strict=True) if taken]
