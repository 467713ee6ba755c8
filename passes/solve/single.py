"""One published solver by name, for people who want that one and nothing else.

    magnitude   the largest |w| stay, as they are
    wanda       the largest |w|·√E[x²] stay, as they are (arXiv 2306.11695)
    dsnot       Wanda's mask with swaps that bring each output's mean error to 0 (arXiv 2310.08915)
    sparsegpt   one sweep with updated weights, 1 % of the mean diagonal as damping (arXiv 2301.00774)
    admm        ALPS's mask and its exact weights (arXiv 2406.07831)
    exactobs    one weight at a time, and exact weights (arXiv 2208.11580)

Those with updated weights aim at what the dense model gives, as everything here does. A solver that cannot do a layer
leaves it to Wanda's mask, and says so. What a solver found is still judged on held-out data beside that mask.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from prunec.passes.solve import dsnot, exactobs, sparsegpt
from prunec.passes.solve.admm import admm
from prunec.passes.solve.hessian import Double, MatrixHessian
from prunec.passes.solve.masks import magnitude_mask, wanda_mask
from prunec.passes.solve.problem import LayerProblem
from prunec.passes.solve.quadratic import Quadratic, quadratic
from prunec.passes.solve.refit import refit
from prunec.passes.solve.solution import Solution, Trial
from prunec.patterns import Pattern, masked
from prunec.patterns.base import Mask, Scope

Single = Literal["magnitude", "wanda", "dsnot", "sparsegpt", "admm", "exactobs"]
SINGLE: tuple[Single, ...] = get_args(Single)
MASKS: tuple[Single, ...] = ("magnitude", "wanda", "dsnot")
"""Those that leave the weights as they are."""
DAMPING = 0.01
ITERATIONS = 300


def solve_by(name: Single, problem: LayerProblem, pattern: Pattern, level: float) -> Solution:
    """What that solver makes of a layer.

    Raises:
        PrunecError PC225: the pattern does not fit the weight; PC332: a system cannot be solved.
    """
    plain = quadratic(problem, DAMPING, to_dense=False)
    mask = wanda_mask(plain, pattern, level, _scope(pattern))
    notes: tuple[str, ...] = ()
    if name == "magnitude":
        mask = magnitude_mask(plain, pattern, level)
    elif name == "dsnot":
        mask, notes = _swapped(problem, pattern, level, mask)
    kept = masked(problem.weight, mask)
    trials = [_trial(name if name in MASKS else "wanda", 0.0, problem, kept)]
    if name in MASKS:
        return Solution(kept, mask, kept, trials[0], tuple(trials), notes, trials[0].method)
    updated, own, notes = _updated(name, problem, pattern, level)
    if updated is None or own is None:
        notes = tuple(f"{note}: Wanda's mask stands" for note in notes)
        return Solution(kept, mask, kept, trials[0], tuple(trials), notes, "wanda")
    trials.append(_trial(name, DAMPING, problem, updated))
    return Solution(updated, own, kept, trials[1], tuple(trials), notes, "wanda")


def _trial(name: str, damping: float, problem: LayerProblem, weight: Double) -> Trial:
    return Trial(name, damping, problem.fit.error(weight), problem.held_out.error(weight))


def _updated(
    name: Single, problem: LayerProblem, pattern: Pattern, level: float
) -> tuple[Double | None, Mask | None, tuple[str, ...]]:
    """New weights and their mask, or why there are none."""
    q = quadratic(problem, DAMPING, "mean" if name == "sparsegpt" else "diagonal")
    if name == "sparsegpt":
        refusal = sparsegpt.refusal(q, pattern)
        if refusal is not None:
            return None, None, (refusal,)
        weight, mask, notes = sparsegpt.sparsegpt(q, pattern, level)
        return masked(q.unscale(weight), mask), mask, notes
    if name == "admm":
        found = admm(q, pattern, level, iterations=ITERATIONS)
        notes = () if found.has_settled else (f"ADMM's mask still moved after {found.iterations} iterations",)
        return _refitted(q, pattern, found.mask), found.mask, notes
    refusal = exactobs.refusal(q, pattern)
    if refusal is not None:
        return None, None, (refusal,)
    mask = exactobs.exactobs(q, pattern, level)
    return _refitted(q, pattern, mask), mask, ()


def _refitted(q: Quadratic, pattern: Pattern, mask: Mask) -> Double:
    return masked(q.unscale(refit(q, mask, pattern.rows)), mask)


def _swapped(problem: LayerProblem, pattern: Pattern, level: float, mask: Mask) -> tuple[Mask, tuple[str, ...]]:
    """Mean errors are there to be corrected only beside uncentred moments."""
    refusal = dsnot.refusal(pattern)
    if refusal is None and problem.fit.is_centred:
        hessian = problem.fit.hessian
        if not isinstance(hessian, MatrixHessian):
            refusal = "DSnoT needs H as a matrix, and the layer has too many inputs for one"
        else:
            matrix = hessian.matrix + np.outer(problem.fit.mean, problem.fit.mean)
            problem = replace(problem, fit=replace(problem.fit, hessian=MatrixHessian(matrix)))
    if refusal is not None:
        return mask, (f"{refusal}: Wanda's mask stands",)
    q = quadratic(problem, DAMPING, to_dense=False)
    return dsnot.dsnot(q, pattern, wanda_mask(q, pattern, level, _scope(pattern)), problem.fit.mean), ()


def _scope(pattern: Pattern) -> Scope:
    """Wanda compares single weights inside each row."""
    return "row" if pattern.name == "unstructured" else "layer"
