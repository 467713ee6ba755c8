"""Recurrent layers: every sum of the gates is a linear layer over [x_t, s_t], solved against the dense sum.

As in `passes.compensate.recurrent`, the states that a sum reads are those of the pruned layer, which depend on the
weights that are being solved for. The first solution is made on the states of the unpruned weights; further ones on the
states that the best so far makes, while what leaves the node on held-out data gets closer to the dense layer's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from prunec.passes.compensate.fit import not_finite
from prunec.passes.compensate.recurrent import ROUNDS, WORTH_A_ROUND, Fit
from prunec.passes.compensate.recurrent_layer import CellWeights
from prunec.passes.compensate.recurrent_sides import Candidate
from prunec.passes.solve import LayerProblem, Solution
from prunec.passes.sparsify.problems import HELD_OUT_SHARE, MOMENT_WORK, ROWS_PER_UNKNOWN, samples_of
from prunec.patterns import Layout

Solve = Callable[[LayerProblem], Solution]
Problems = list[list[LayerProblem]]
"""Per part and direction."""


@dataclass(frozen=True)
class Found:
    """`plain` is the masked layer, `best` what is written; `errors` of both on held-out data, behind the node.

    `fitted`, `held_out`: relative squared errors of the sums, over all of them.
    """

    plain: CellWeights
    best: Candidate
    errors: tuple[float, float]
    fitted: float
    held_out: float
    notes: tuple[str, ...]


def dense_problems(fit: Fit) -> Problems:
    """The sums on the states that the unpruned weights make."""
    start = Candidate("none", fit.layer.weights())
    return _problems(fit, start, start, shifts=True)


def solve_sums(
    fit: Fit, solve: Solve, *, shifts: bool, rounds: int = ROUNDS, problems: Problems | None = None
) -> Found:
    """`shifts`: more than masks is wanted, and biases may be corrected. `problems`: `dense_problems`, where known.

    Raises:
        PrunecError PC330: the states are not finite; PC332: a system cannot be solved.
    """
    start = Candidate("none", fit.layer.weights())
    own = _problems(fit, start, start, shifts) if problems is None else problems
    solved = [[solve(problem) for problem in part] for part in own]
    masks = [[s.plain for s in part] for part in solved]
    plain = Candidate(solved[0][0].plain_method, _with(fit, start, masks, None))
    (error_plain,) = fit.sides.errors([plain])
    if error_plain == math.inf:
        raise not_finite(fit.layer)
    best, error, basis, weights = plain, error_plain, own, masks
    for turn in range(rounds if shifts else 0):
        if turn:
            own = _problems(fit, start, best, shifts)
            solved = [[solve(problem) for problem in part] for part in own]
        before = error
        for candidate, matrices in _candidates(fit, start, own, solved, turn, plain.method):
            (judged,) = fit.sides.errors([candidate])
            if judged < error:
                best, error, basis, weights = candidate, judged, own, matrices
        if error > WORTH_A_ROUND * before:
            break
    notes = tuple(dict.fromkeys(note for part in solved for s in part for note in s.notes))
    pairs = [pair for part in zip(basis, weights, strict=True) for pair in zip(*part, strict=True)]
    fitted = sum(p.fit.error(w) * p.fit.power for p, w in pairs) / (sum(p.fit.power for p, _ in pairs) or 1.0)
    held = sum(p.held_out.error(w) * p.held_out.power for p, w in pairs)
    held_out = held / (sum(p.held_out.power for p, _ in pairs) or 1.0)
    return Found(plain.weights, best, (error_plain, error), fitted, held_out, (*best.notes, *notes))


def _problems(fit: Fit, start: Candidate, states: Candidate, shifts: bool) -> Problems:
    """On the states that `states` makes, towards the weights of `start`."""
    affordable = min(ROWS_PER_UNKNOWN * fit.unknowns, int(MOMENT_WORK / fit.unknowns**2 / len(start.weights.w)))
    wanted = max(fit.wanted(), affordable)
    runner = fit.sides.runner
    held = fit.moments(states, batches=runner.held_out, wanted=int(np.ceil(wanted * HELD_OUT_SHARE)))
    known = fit.moments(states, wanted=wanted)  # last: `fit.rows` counts these
    found = []
    for part, *moments in zip(fit.layer.parts, known, held, strict=True):
        matrix, bias = start.weights.matrix(part), start.weights.bias(part)
        sets = [samples_of(own, bias, centred=shifts) for own in moments]
        layout = Layout(1, matrix.shape[2])
        found.append([LayerProblem(weight, layout, *two) for weight, *two in zip(matrix, *sets, strict=True)])
    return found


def _candidates(
    fit: Fit, start: Candidate, own: Problems, solved: list[list[Solution]], turn: int, plain: str
) -> list[tuple[Candidate, list[list[np.ndarray]]]]:
    """With corrected biases: the plain masks, once, and the solutions."""
    found = []
    masks = [[s.plain for s in part] for part in solved]
    if not turn:
        found.append((Candidate(f"{plain}+bias", _with(fit, start, masks, own)), masks))
    methods = dict.fromkeys(s.chosen.method for part in solved for s in part)
    if list(methods) != [plain]:
        weights = [[s.weight for s in part] for part in solved]
        damping = max(s.chosen.damping for part in solved for s in part)
        notes = (f"on its own states, round {turn + 1}",)
        found.append((Candidate(", ".join(methods), _with(fit, start, weights, own), damping, notes), weights))
    return found


def _with(fit: Fit, start: Candidate, matrices: list[list[np.ndarray]], own: Problems | None) -> CellWeights:
    """The layer with new matrices, and the biases that go with them where `own` is given."""
    weights = start.weights
    for k, part in enumerate(fit.layer.parts):
        bias = start.weights.bias(part)
        if own is not None:
            bias = np.stack([p.fit.bias(w) for p, w in zip(own[k], matrices[k], strict=True)])
        weights = weights.with_part(part, np.stack(matrices[k]), bias)
    return weights
