"""Plans for budgets that are met by times, measured or modelled: a time, a drop, both, or points of a curve."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prunec.api.choices import Judge
from prunec.api.contest import contest_of, met
from prunec.api.depth_timing import TimedDepth
from prunec.api.dropping import DropPlanner
from prunec.api.opening import Opened
from prunec.api.options import PlanOptions
from prunec.api.polishing import Polisher
from prunec.api.precision_timing import TimedPrecisions
from prunec.api.progress import Progress
from prunec.api.pruning import Judged
from prunec.api.scoring import scored
from prunec.api.timed import TimedPlanner
from prunec.api.timing import TimedWidths
from prunec.api.watches import timed_dense
from prunec.api.zero_timing import TimedZeros
from prunec.diagnostics import Diagnostic
from prunec.frontend.calibration import Calibration
from prunec.plan.budget import Budget
from prunec.plan.plan import Plan
from prunec.plan.structures import DEFAULT_STRUCTURES


@contextmanager
def timed_planner(
    opened: Opened, calibration: Calibration, options: PlanOptions, progress: Progress
) -> Iterator[tuple[TimedPlanner, tuple[Diagnostic, ...]]]:
    """Widths of channels, with blocks if they may go, or zeros for a pattern, with data types where int8 is asked for.

    And what there is to say about the criterion, or about the times.
    """
    with timed_dense(opened, options) as dense:
        if options.sparse_pattern() is not None:
            planners = TimedZeros if options.precision is None else TimedPrecisions
            zeros = planners(opened, dense, calibration, options, progress)
            yield zeros, ((modelled_note(zeros.machine),) if zeros.is_modelled else ())
            return
        planner = scored(opened, opened.canonical, opened.analysis, calibration, options, progress)
        of_channels = TimedWidths if options.chosen_recipe().structures == DEFAULT_STRUCTURES else TimedDepth
        yield of_channels(opened, planner, dense, calibration, options, progress), planner.notes


def modelled_note(machine: str) -> Diagnostic:
    """PC469."""
    message = f"times are modelled and not measured: those of {machine}"
    hint = "no device is here: the runner in the package times it on one (`prunec bench OUT` prints the command)"
    return Diagnostic("PC469", message, hint=hint)


def make_timed(
    opened: Opened,
    calibration: Calibration,
    options: PlanOptions,
    budget: Budget,
    progress: Progress,
    own: Judged | None,
    max_drop: float | None,
) -> tuple[Plan, tuple[Diagnostic, ...]]:
    """The plan for a time, which keeps within `max_drop` if that is given; or for a drop, the fastest.

    Raises:
        PrunecError PC207, PC208, PC225; GateError PC527, PC528, PC530, PC534: see the planners.
    """
    with timed_planner(opened, calibration, options, progress) as (timed, notes):
        judge = Judge(opened, calibration, options, own)
        contest = contest_of(timed, judge, opened, calibration, options, progress)
        if budget.kind == "max-drop":
            made, warnings = DropPlanner(timed, judge, progress).fastest(budget, contest)
            return made, (*notes, *warnings)
        timed, made, point = met(timed, contest, budget)
        if options.polish:
            polisher = Polisher(timed, judge, opened, calibration, options.polish, options.seed, progress)
            made = polisher.polished(made, point, budget)
        return (made if max_drop is None else DropPlanner(timed, judge, progress).checked(made, max_drop)), notes
