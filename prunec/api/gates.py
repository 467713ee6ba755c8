"""The gates of a compile: what the user demanded beside the budget."""

from __future__ import annotations

from prunec.api.pruning import Judged
from prunec.diagnostics import Diagnostic, GateError, PrunecError
from prunec.measure.gate import baseline_of, gate_speedup
from prunec.measure.modelled import Modelled
from prunec.measure.results import Measurements
from prunec.plan.budget import Budget
from prunec.verify.records import QualityRecord

MODEL_SLACK = 0.01
"""Of modelled times: what refitting adds to a layer that was planned without (a bias, say), no noise."""


def check_gates(
    *,
    min_speedup: float | None,
    max_drop: float | None,
    budget: Budget | None,
    measures: bool,
    dry_run: bool = False,
    builds: bool = True,
    recovers: bool = False,
    is_relaxed: bool = False,
) -> None:
    """Refuse gates that cannot be judged, and a measured budget where nobody may time, before any work is done.

    `is_relaxed`: with WebAssembly's relaxed SIMD.

    Raises:
        PrunecError PC208, PC222.
    """
    if min_speedup is not None and not min_speedup > 0:
        raise PrunecError(
            "PC208", f"{min_speedup:g} is not a speed-up", where="--min-speedup", hint="above 0, as in 1.5"
        )
    if max_drop is not None and not max_drop >= 0:
        raise PrunecError("PC208", f"{max_drop:g} is not a drop", where="--max-drop", hint="0 or more, as in 0.01")
    is_gate = max_drop is not None and (budget is None or budget.kind != "max-drop")
    if dry_run and (min_speedup is not None or is_gate):
        gate = "--max-drop" if min_speedup is None else "--min-speedup"
        message = f"{gate} judges a finished model and --dry-run makes none"
        raise PrunecError("PC222", message, hint="leave one of the two out")
    if recovers and budget is not None and budget.kind == "max-drop":
        message = "--max-drop is looked for on models as they are before training, so --recover cannot count"
        hint = "say how much goes with --speedup, --flops, --params or --sparsity, and --max-drop becomes a gate"
        raise PrunecError("PC222", message, where="--recover", hint=hint)
    if min_speedup is not None and not builds:
        message = "--min-speedup demands a measurement and --no-build leaves nothing to measure"
        raise PrunecError("PC222", message, hint="leave one of the two out")
    if min_speedup is not None and not measures:
        raise PrunecError(
            "PC222",
            "--min-speedup demands a measurement and --no-measure forbids it",
            hint="leave one of the two out",
        )
    if budget is not None and budget.is_measured and not measures:
        message = f"--{budget.kind} is met and judged by times, and --no-measure leaves them out"
        raise PrunecError("PC222", message, hint="leave one of the two out")
    if budget is not None and budget.is_measured and not builds:
        message = f"--{budget.kind} is judged on the finished model and --no-build leaves nothing to judge"
        hint = "plan for it first (`prunec plan`), and compile that plan with --plan and --no-build"
        raise PrunecError("PC222", message, hint=hint)
    if budget is not None and budget.is_measured and is_relaxed:
        message = f"--{budget.kind} is met by times without relaxed SIMD"
        hint = "plan without it (`prunec plan`), and compile that plan with --plan and --relaxed-simd"
        raise PrunecError("PC222", message, where="--relaxed-simd", hint=hint)


def wide_drop(max_drop: float | None, own: Judged | None) -> tuple[Diagnostic, ...]:
    """A warning where the drop allows whatever comes out: a share of 1 is all there is of most metrics."""
    if max_drop is None or own is None:
        return ()
    name, dense = next(iter(own.dense.items()))
    if not 0 < dense <= 1 < max_drop:
        return ()
    message = f"a drop of {max_drop:g} allows everything: {name} of the dense model is {dense:.3g}"
    hint = f"{max_drop / 100:g} is {max_drop:g} points of a hundred"
    return (Diagnostic("PC231", message, where="--max-drop", hint=hint),)


def refusals(
    quality: QualityRecord | None,
    measurements: Measurements | None,
    *,
    min_speedup: float | None,
    max_drop: float | None,
    budget: Budget | None = None,
    bytes_after: int | None = None,
    modelled: Modelled | None = None,
) -> list[GateError]:
    """Every gate that says no, a `budget` of time or of size (`bytes_after`: of the model's files) among them.

    `modelled`: times where the target has no others.
    """
    found: list[GateError] = []
    if max_drop is not None and (refusal := gate_drop(quality, max_drop)) is not None:
        found.append(refusal)
    if min_speedup is not None and (slow := gate_speedup(measurements, min_speedup)) is not None:
        found.append(slow)
    if budget is not None and budget.is_time:
        missed = gate_time(measurements, budget) if modelled is None else gate_modelled(modelled, budget)
        found += [] if missed is None else [missed]
    if budget is not None and budget.kind == "max-drop":
        slower = gate_slower(measurements) if modelled is None else gate_modelled_slower(modelled)
        found += [] if slower is None else [slower]
    if budget is not None and budget.kind == "size-mb" and (bytes_after is None or bytes_after > budget.value * 1e6):
        found.append(_too_large(budget, bytes_after))
    return found


def _too_large(budget: Budget, bytes_after: int | None) -> GateError:
    """The plan counts bytes before anything is refitted, and a refitted layer may have got a bias."""
    found = "an unknown size" if bytes_after is None else f"{bytes_after / 1e6:.6g} MB"
    hint = "ask for a little less: biases that a refit adds are not in the plan"
    return GateError("PC531", f"the finished model has {found}", where=f"--size-mb {budget.value:g}", hint=hint)


def gate_time(result: Measurements | None, budget: Budget) -> GateError | None:
    """None unless the finished model is shown to miss a budget of time (PC529): its whole interval does.

    The planner measured the same widths before: a median that lands just beside the budget this time is no news.
    """
    baseline = baseline_of(result)
    speedup = None if result is None else result.speedup.get(f"vs_{baseline}")
    if result is None or speedup is None:
        return GateError("PC529", "nothing was measured, so nothing shows that it is met", where=f"--{budget.kind}")
    dense_ms = result.contenders[baseline].p50_ms
    if speedup.ci95[1] >= 1 / budget.time_limit(dense_ms):
        return None
    low, high = speedup.ci95
    near = f"{low:.2f}" if budget.kind == "speedup" else f"{dense_ms / low:.3g}"
    less = f", or ask for less: this model meets --{budget.kind} {near}" if low > 1 else ""
    return GateError(
        "PC529",
        f"the finished model is {speedup.median:.3g} times as fast (95 % interval {low:.3g} to {high:.3g}), "
        f"{dense_ms / speedup.median:.3g} ms for one run",
        where=f"--{budget.kind} {budget.value:g}",
        hint=f"plan again (--no-cache times everything anew){less}",
    )


def gate_modelled(found: Modelled, budget: Budget) -> GateError | None:
    """None where the finished model is modelled to meet a budget of time, as the plan was. PC529."""
    where = f"--{budget.kind} {budget.value:g}"
    if found.run_ms is None or found.run_dense_ms is None:
        hint = "apt install qemu-user"
        return GateError(
            "PC529", "no instructions were counted, so nothing shows that it is met", where=where, hint=hint
        )
    share = found.run_ms / found.run_dense_ms
    if share <= budget.time_limit(found.run_dense_ms) * (1 + MODEL_SLACK):
        return None
    message = f"the finished model is modelled to be {1 / share:.3g} times as fast, {found.run_ms:.3g} ms for one run"
    return GateError("PC529", f"{message}, on {found.core}", where=where, hint="ask for a little less")


def gate_slower(result: Measurements | None) -> GateError | None:
    """None unless the finished model of a plan for speed is shown to be slower than the dense one (PC535)."""
    speedup = None if result is None else result.speedup.get(f"vs_{baseline_of(result)}")
    if speedup is None or speedup.ci95[1] >= 1:
        return None
    low, high = speedup.ci95
    return GateError(
        "PC535",
        f"the finished model is slower than the dense one: {speedup.median:.3g} times as fast "
        f"(95 % interval {low:.3g} to {high:.3g})",
        where="--max-drop",
        hint="it was faster while the plan was made: try again when the machine is quiet (--no-cache), or allow more",
    )


def gate_modelled_slower(found: Modelled) -> GateError | None:
    """None unless the finished model of a plan for speed is modelled to be slower than the dense one (PC535)."""
    if found.run_ms is None or found.run_dense_ms is None or found.run_ms < found.run_dense_ms:
        return None
    message = f"the finished model is modelled to take {found.run_ms:.3g} ms, the dense one {found.run_dense_ms:.3g} ms"
    return GateError("PC535", f"{message}, on {found.core}", where="--max-drop", hint="allow more")


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
