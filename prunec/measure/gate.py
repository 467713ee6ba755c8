"""The speed gate: `--min-speedup`."""

from __future__ import annotations

from prunec.diagnostics import GateError
from prunec.measure.contender import BASELINES, DENSE
from prunec.measure.results import Measurements


def baseline_of(result: Measurements | None) -> str:
    """What a speed-up is over by default: the first of `BASELINES` that was measured."""
    measured = {} if result is None else result.speedup
    return next((name for name in BASELINES if f"vs_{name}" in measured), DENSE)


def gate_speedup(result: Measurements | None, minimum: float, *, baseline: str | None = None) -> GateError | None:
    """None if the speed-up over `baseline` (by default the dense model) is shown to be at least `minimum`, else why.

    "Shown" means that the whole 95 % interval lies at or above `minimum`: a median that only happens to land above it
    is not enough. Nothing measured is a no (PC518); too slow, or not shown to be fast enough, is a no (PC517).
    """
    baseline = baseline or baseline_of(result)
    speedup = None if result is None else result.speedup.get(f"vs_{baseline}")
    if speedup is None:
        return GateError(
            "PC518",
            f"a speed-up of {minimum:g}x over {baseline} was asked for, but nothing was measured",
            where="--min-speedup",
            hint="measure (drop --no-measure), or drop --min-speedup",
        )
    low, high = speedup.ci95
    if low >= minimum:
        return None
    found = f"{speedup.median:.3g}x measured (95 % interval {low:.3g} to {high:.3g})"
    if speedup.median < minimum:
        message, hint = f"{found} is below the {minimum:g}x asked for", "prune more, or ask for less"
    else:
        message = f"{found} does not show the {minimum:g}x asked for: its lower end is below"
        hint = "prune a little more, ask for less, or measure on a quieter machine with more --blocks"
    return GateError("PC517", message, where="--min-speedup", hint=hint)
