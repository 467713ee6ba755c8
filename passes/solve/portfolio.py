"""`solve`: one layer, one pattern, a named amount of effort; every step is kept only if held-out error falls.

- `mask`: Wanda's mask and the old weights, nothing else.
- `quick`: Wanda's mask with exact weights against the dense target, at one damping: what levels are compared by.
- `fast`: Wanda's mask, and SparseGPT's, each with exact weights against the dense target, at one damping.
- `balanced`: the damping is chosen on held-out data, then ADMM finds the mask, `refit` its weights.
- `best`: more dampings, ADMM to its end, ExactOBS where the layer is small enough, masks from all of them.

The plain mask (Wanda without any update) always competes: with uncorrelated inputs nothing beats it. Instead of an
effort one solver may be named (`single.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np

from prunec.passes.solve import exactobs, sparsegpt
from prunec.passes.solve.admm import admm
from prunec.passes.solve.hessian import Array, Double
from prunec.passes.solve.masks import wanda_mask
from prunec.passes.solve.problem import LayerProblem
from prunec.passes.solve.quadratic import Quadratic, quadratic
from prunec.passes.solve.refit import refit
from prunec.passes.solve.single import Single, solve_by
from prunec.passes.solve.solution import Solution, Trial
from prunec.patterns import Pattern, masked
from prunec.patterns.base import Mask, Scope

Portfolio = Literal["mask", "quick", "fast", "balanced", "best"]
Effort = Portfolio | Single
EFFORTS: tuple[Portfolio, ...] = ("fast", "balanced", "best")


@dataclass(frozen=True)
class Settings:
    """`iterations` of ADMM at most, and in the search for a damping; `probe_rows` outputs take part in that search."""

    dampings: tuple[float, ...]
    iterations: int
    probe_iterations: int
    probe_rows: int


DAMPINGS = (0.001, 0.01, 0.1, 1.0, 10.0)
FINE_DAMPINGS = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
FIRST = 0.1
SETTINGS: dict[Portfolio, Settings] = {
    "mask": Settings((0.0,), 0, 0, 0),
    "quick": Settings((0.03,), 0, 0, 0),
    "fast": Settings((0.03,), 0, 0, 0),
    "balanced": Settings(DAMPINGS, 60, 10, 48),
    "best": Settings(FINE_DAMPINGS, 300, 60, 512),
}


Candidate = tuple[str, float, Double, Mask]


def solve(
    problem: LayerProblem, pattern: Pattern, level: float, effort: Effort = "balanced", *, scope: Scope = "layer"
) -> Solution:
    """The candidate with the least held-out error, or what the solver of that name found.

    Raises:
        PrunecError PC225: the pattern does not fit the weight; PC332: a system cannot be solved.
    """
    if effort not in SETTINGS:
        found = solve_by(cast(Single, effort), problem, pattern, level)
        return replace(found, notes=(*_notes(problem), *found.notes))
    settings = SETTINGS[effort]
    notes = list(_notes(problem))
    best: tuple[Trial, Double, Mask] | None = None
    plain: Double | None = None
    trials: list[Trial] = []
    for name, damping, weight, mask in _candidates(problem, pattern, level, effort, settings, scope, notes):
        trial = Trial(name, damping, problem.fit.error(weight), problem.held_out.error(weight))
        trials.append(trial)
        plain = weight if plain is None else plain
        if best is None or trial.error_held_out < best[0].error_held_out:
            best = trial, weight, mask
    assert best is not None and plain is not None
    chosen, weight, mask = best
    return Solution(masked(weight, mask), mask, plain, chosen, tuple(trials), tuple(dict.fromkeys(notes)))


def _notes(problem: LayerProblem) -> Iterator[str]:
    columns = problem.weight.shape[1]
    if problem.fit.count < columns:
        yield f"fewer samples ({problem.fit.count}) than inputs ({columns}): damping decides what is not known"


def _candidates(
    problem: LayerProblem,
    pattern: Pattern,
    level: float,
    effort: Portfolio,
    settings: Settings,
    scope: Scope,
    notes: list[str],
) -> Iterator[Candidate]:
    own: Scope = "row" if pattern.name == "unstructured" and scope == "row" else "layer"
    plain = quadratic(problem, 0.01, to_dense=False)
    if plain.dead:
        notes.append(f"{plain.dead} inputs are always zero or constant")
    mask = wanda_mask(plain, pattern, level, own)
    yield "mask", 0.0, masked(problem.weight, mask), mask
    if effort == "mask":
        return
    damping = settings.dampings[0]
    if len(settings.dampings) > 1:
        damping = chosen_damping(problem, pattern, level, settings, own)
    q = quadratic(problem, damping)
    if effort != "balanced":
        mask = wanda_mask(q, pattern, level, own)
        yield "wanda+refit", damping, _refitted(q, pattern, mask), mask
        if effort == "quick":
            return
        refusal = sparsegpt.refusal(q, pattern)
        if refusal is None:
            _, mask, more = sparsegpt.sparsegpt(q, pattern, level)
            notes += more
            yield "sparsegpt+refit", damping, _refitted(q, pattern, mask), mask
        else:
            notes.append(refusal)
    if settings.iterations:
        found = admm(q, pattern, level, iterations=settings.iterations, scope=own)
        if not found.has_settled:
            notes.append(f"ADMM's mask still moved after {found.iterations} iterations")
        yield "admm+refit", damping, _refitted(q, pattern, found.mask, found.weight), found.mask
    if effort == "best":
        refusal = exactobs.refusal(q, pattern)
        if refusal is None:
            mask = exactobs.exactobs(q, pattern, level)
            yield "exactobs+refit", damping, _refitted(q, pattern, mask), mask
        else:
            notes.append(refusal)


def _refitted(q: Quadratic, pattern: Pattern, mask: Mask, start: Array | None = None) -> Double:
    return masked(q.unscale(refit(q, mask, pattern.rows, start)), mask)


def quick_error(problem: LayerProblem, pattern: Pattern, level: float) -> float:
    """The held-out error of Wanda's mask with exact weights: the cheapest solution there is, to compare layers by."""
    q = quadratic(problem, SETTINGS["fast"].dampings[0])
    return problem.held_out.error(_refitted(q, pattern, wanda_mask(q, pattern, level, "layer")))


def chosen_damping(
    problem: LayerProblem,
    pattern: Pattern,
    level: float,
    settings: Settings = SETTINGS["balanced"],
    scope: Scope = "layer",
) -> float:
    """The damping with the least held-out error on some of the outputs, all with the mask of a short run of ADMM.

    From the middle of the list downhill, as long as it goes down: a factorisation and a refit each.
    """
    part = problem.rows(spread(len(problem.weight), pattern.quantum, settings.probe_rows))
    found = admm(quadratic(part, FIRST), pattern, level, iterations=settings.probe_iterations, scope=scope)
    known: dict[int, float] = {}

    def error(place: int) -> float:
        if place not in known:
            q = quadratic(part, settings.dampings[place])
            known[place] = part.held_out.error(_refitted(q, pattern, found.mask, found.weight))
        return known[place]

    best = settings.dampings.index(FIRST)
    for step in (-1, 1):
        while 0 <= best + step < len(settings.dampings) and error(best + step) < error(best):
            best += step
    return settings.dampings[best]


def spread(outputs: int, quantum: int, wanted: int) -> np.ndarray:
    """Indices of about `wanted` outputs in runs of `quantum`, spread evenly."""
    runs = outputs // quantum
    count = min(runs, max(1, wanted // quantum))
    first = (np.arange(count) * runs // count) * quantum
    index: np.ndarray = (first[:, None] + np.arange(quantum)).ravel()
    return index
