"""Score what may be cut of a model: statistics as far as criterion and scope need them, then the planner."""

from __future__ import annotations

import onnx_ir as ir

from prunec.api.opening import Opened
from prunec.api.options import PlanOptions
from prunec.api.progress import Progress
from prunec.api.statistics import cut_errors, score_context
from prunec.criteria import create
from prunec.frontend.calibration import Calibration
from prunec.graph import Analysis
from prunec.plan.planner import Planner


def scored(
    opened: Opened,
    model: ir.Model,
    analysis: Analysis,
    calibration: Calibration,
    options: PlanOptions,
    progress: Progress,
    *,
    what: str = "",
    baseline: ir.Model | None = None,
) -> Planner:
    """A planner for `model`, the canonical one or what stages left of it; `what` is scored, for the progress.

    Raises PrunecError PC203, PC206, PC208 to PC211.
    """
    recipe = options.chosen_recipe()
    criterion = create(recipe.criterion)
    if criterion.needs or recipe.scope == "loss":
        progress(f"statistics of {what}" if what else "statistics", 0, 0)
    context = score_context(model, analysis, calibration, criterion, options, progress)
    measured = cut_errors(model, analysis, calibration, options, progress)
    progress(f"planning {what}".rstrip(), 0, 0)
    return Planner(
        model,
        analysis,
        criterion,
        context,
        target=options.target,
        scope=recipe.scope,
        round_to=options.round_to,
        include=options.include,
        exclude=options.exclude,
        floor=recipe.floor,
        normalise=recipe.normalise,
        seed=options.seed,
        source_sha256=opened.source.sha256,
        baseline=baseline,
        measured=measured,
    )
