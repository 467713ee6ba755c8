"""The gates of a compile: what the user demanded beside the budget."""

from __future__ import annotations

from prunec.diagnostics import GateError, PrunecError
from prunec.measure.gate import gate_speedup
from prunec.measure.results import Measurements
from prunec.verify.records import QualityRecord


def check_gate_options(
    *, min_speedup: float | None, max_drop: float | None, measures: bool, dry_run: bool = False, builds: bool = True
) -> None:
    """Refuse gates that cannot be judged, before any work is done. PrunecError PC208, PC222."""
    if min_speedup is not None and not min_speedup > 0:
        raise PrunecError(
            "PC208", f"{min_speedup:g} is not a speed-up", where="--min-speedup", hint="above 0, as in 1.5"
        )
    if max_drop is not None and not max_drop >= 0:
        raise PrunecError("PC208", f"{max_drop:g} is not a drop", where="--max-drop", hint="0 or more, as in 0.01")
    if dry_run and (min_speedup is not None or max_drop is not None):
        gate = "--max-drop" if min_speedup is None else "--min-speedup"
        message = f"{gate} judges a finished model and --dry-run makes none"
        raise PrunecError("PC222", message, hint="leave one of the two out")
    if min_speedup is not None and not builds:
        message = "--min-speedup demands a measurement and --no-build leaves nothing to measure"
        raise PrunecError("PC222", message, hint="leave one of the two out")
    if min_speedup is not None and not measures:
        raise PrunecError(
            "PC222",
            "--min-speedup demands a measurement and --no-measure forbids it",
            hint="leave one of the two out",
        )


def refusals(
    quality: QualityRecord | None,
    measurements: Measurements | None,
    *,
    min_speedup: float | None,
    max_drop: float | None,
) -> list[GateError]:
    """Every gate that says no."""
    found: list[GateError] = []
    if max_drop is not None and (refusal := gate_drop(quality, max_drop)) is not None:
        found.append(refusal)
    if min_speedup is not None and (slow := gate_speedup(measurements, min_speedup)) is not None:
        found.append(slow)
    return found


def gate_drop(quality: QualityRecord | None, maximum: float) -> GateError | None:
    """None if the primary metric dropped by at most `maximum` (absolute, in its own unit), else why not. PC507."""
    if quality is None:
        return GateError("PC507", "no quality was found, so nothing shows that it is kept", where="--max-drop")
    if quality.drop <= maximum:
        return None
    found = f"{quality.metric} dropped by {quality.drop:.4g}, from {quality.dense:.4g} to {quality.pruned:.4g}"
    return GateError(
        "PC507",
        f"{found}, more than the {maximum:g} allowed",
        where="--max-drop",
        hint="prune less, exclude sensitive layers with --exclude, or give real data with --calib",
    )
