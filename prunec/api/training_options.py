"""Options of `--recover`: which of them go together, and what they make of a plan's training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunec.catalog import unknown_name
from prunec.diagnostics import PrunecError
from prunec.plan.recovery import METHODS, PRECISIONS, RecoveryPlan

if TYPE_CHECKING:
    from prunec.api.options import PlanOptions


def check_training(options: PlanOptions) -> None:
    """Refuse what cannot be trained as it was asked for. PrunecError PC203: an unknown name; PC208: else."""
    minutes = options.recover_minutes
    if options.recover is not None and options.recover not in ("none", *METHODS):
        raise unknown_name("PC203", "way to recover", options.recover, ("none", *METHODS))
    if minutes is not None and not 0 < minutes < float("inf"):
        message = f"{minutes:g} is no time to train in"
        raise PrunecError("PC208", message, where="--recover-minutes", hint="above 0, as in 20")
    if minutes is not None and options.recover == "none":
        message = "--recover none trains nothing that --recover-minutes could bound"
        raise PrunecError("PC208", message, where="--recover-minutes", hint="leave one of the two out")
    if options.recover_precision is not None:
        _check_precision(options, options.recover_precision)
    if options.recover_soup is not None:
        _check_soup(options, options.recover_soup)
    if options.steps is not None and options.steps < 1:
        raise PrunecError("PC208", f"{options.steps} is no number of steps", where="--steps", hint="1 or more, as in 5")
    if options.in_steps and options.recover in (None, "none"):
        message = "between steps what is left is trained, and nothing says how"
        raise PrunecError("PC208", message, where="--steps", hint="add --recover full")


def _check_precision(options: PlanOptions, name: str) -> None:
    if name not in PRECISIONS:
        raise unknown_name("PC203", "precision of a training", name, PRECISIONS)
    if options.recover in (None, "none"):
        message = "--recover-precision says in what to train, and nothing says how"
        raise PrunecError("PC208", message, where="--recover-precision", hint="add --recover full")


def _check_soup(options: PlanOptions, count: int) -> None:
    found, hint = None, "add --recover full"
    if count < 1:
        found, hint = f"{count} is no number of trainings", "1 or more"
    elif options.recover in (None, "none"):
        found = "the mean of several trainings was asked for, and nothing says how to train"
    elif options.recover == "blocks":
        found, hint = "training block by block is one training", "use full or bias, or leave --recover-soup out"
    if found is not None:
        raise PrunecError("PC208", found, where="--recover-soup", hint=hint)


def planned_training(options: PlanOptions, planned: RecoveryPlan | None = None) -> RecoveryPlan | None:
    """What is trained after all is refitted: as `options` say, else as `planned`.

    Raises:
        PrunecError PC208: minutes, and nothing to spend them on.
    """
    method = planned.method if options.recover is None and planned is not None else options.recover
    if method is None and options.recover_minutes is not None:
        message = "--recover-minutes says how long and nothing says how"
        raise PrunecError("PC208", message, where="--recover-minutes", hint="add --recover full")
    if method in (None, "none"):
        return None
    if options.recover is None and options.recover_minutes is None:
        return planned
    own = {
        "method": method, "minutes": options.recover_minutes, "precision": options.recover_precision,
        "soup": options.recover_soup, "steps": options.steps,
    }  # fmt: skip
    return RecoveryPlan.model_validate({key: value for key, value in own.items() if value is not None})
