"""Proof of an order: the model with its channels reordered and the model as it was give the same numbers.

Nothing is masked and nothing is cut, so the dense model is the reference; the tolerances and fall-backs are those of
`exactness`. The plan's order is checked, and a random order of everything that may be reordered beside it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunec.diagnostics import GateError
from prunec.graph.orders import analyse_orders, cells
from prunec.passes.permute import permute_channels
from prunec.verify import float64
from prunec.verify.checker import FLOAT64_MACS, Checker, Outcome, Trial
from prunec.verify.inputs import Feeds


def prove_order(
    model: ir.Model,
    permuted: ir.Model,
    *,
    seed: int,
    threads: int = 1,
    float64_macs: float = FLOAT64_MACS,
    spare: Feeds | None = None,
) -> list[Outcome]:
    """One passed outcome per order, the given one first. `model` is canonical, `spare` as in `exactness.prove`.

    Raises:
        GateError PC501: the numbers differ; PrunecError PC504, PC505: the model does not run on random inputs.
    """
    if float64.has_half_precision(model):
        model, permuted = (float64.with_floats(m, ir.DataType.FLOAT) for m in (model, permuted))
    orders = analyse_orders(model)
    checker = Checker(model, orders, threads, float64_macs, spare)
    random = np.random.default_rng(seed + 1)
    source = np.arange(orders.channel_count)
    for cell in cells(orders):
        source[cell.classes] = random.permutation(cell.classes)
    trials = (
        ("order of the plan", seed, permuted),
        (f"random order, seed {seed + 1}", seed + 1, permute_channels(model, orders, source)),
    )
    whole, outcomes = np.ones(orders.channel_count, bool), []
    for name, number, other in trials:
        outcome = checker.compare(Trial(name, whole, number), model, other)
        if not outcome.passed:
            error = outcome.float32 if outcome.float64 is None else outcome.float64
            why = outcome.broken or f"it differs by {error:.1e}"
            message = f"the model does not compute the same with its channels reordered: {why} ({name})"
            raise GateError("PC501", message, hint="pass --no-permute, and report this model")
        outcomes.append(outcome)
    return outcomes
