"""Refit a recurrent layer: every sum of its gates against the dense model's, on the states that it makes itself.

For kept units the dense layer's sums a_t = W x_t + R s_t + b are known exactly, so each sum is a linear layer like any
other: W' z_t ≈ a_t over z_t = [x_t, s_t] of the pruned layer. But s_t depends on the weights that are being fitted.

1. `bias`: b' = E[a − (W z − b)] on the states of the sliced weights.
2. `lsq`: ridge regressions towards the best so far, on the states of that one and, in the first round, on the dense
   layer's states of the kept units (teacher forcing).
3. From the best, with its own new states, again, while the held-out error falls.

Judged is what leaves the node, with the states that the candidate itself makes from its first step on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import onnx_ir as ir

from prunec.passes.compensate.constants import set_constant
from prunec.passes.compensate.fit import not_finite
from prunec.passes.compensate.options import CompensationRecord, Options
from prunec.passes.compensate.recurrent_layer import DATA, CellWeights, RecurrentLayer
from prunec.passes.compensate.recurrent_rows import Steps, steps, sums
from prunec.passes.compensate.recurrent_sides import Candidate, Sides
from prunec.passes.compensate.rows import sample
from prunec.passes.compensate.runner import Stop
from prunec.passes.compensate.solve import solve
from prunec.statistics.moments import BLOCK_ROWS, Moments

ROUNDS = 4
WORTH_A_ROUND = 0.98
"""Another round is tried while the last one left at most this share of the error."""
TOGETHER_BYTES = 64 * 1024**2
"""Most bytes of weights of candidates that are judged together, each on the same run of the dense layer."""
EXACT_BELOW = 1e-11
"""As in `driver`: float32 rounding in another order."""


def recurrent_stop(layer: RecurrentLayer, dense: ir.Node) -> Stop:
    """Where the runner halts, and what a fit reads there."""
    read = RecurrentLayer(dense).activations().values()
    return Stop(layer.name, frozenset(read), frozenset(layer.activations().values()))


def refit_recurrent(model: ir.Model, sides: Sides, options: Options, number: int) -> CompensationRecord:
    """The node of the pruned `model` gets new constants where they are better.

    Raises:
        PrunecError PC330: the states are not finite; PC332: a system cannot be solved.
    """
    layer = sides.layers[1]
    refusal = sides.refusal()
    if refusal is not None:
        return CompensationRecord(layer.name, "skipped", 0.0, 0, math.nan, math.nan, notes=(refusal,))
    fit = Fit(sides, options, number)
    start = Candidate("none", layer.weights())
    (error,) = sides.errors([start])
    if error == math.inf:
        raise not_finite(layer)
    if error <= EXACT_BELOW:
        return CompensationRecord(layer.name, "none", 0.0, 0, error, error, notes=("its input has not changed",))
    best, best_error = better((start, error), fit.shifted(start), sides)
    for turn in range(ROUNDS if options.method != "bias" else 0):
        before = best_error
        best, best_error = better((best, best_error), fit.solved(best, turn), sides)
        if best_error > WORTH_A_ROUND * before or best_error <= EXACT_BELOW:
            break
    if best is not start:
        write_weights(model.graph, layer, best.weights)
    return CompensationRecord(layer.name, best.method, best.damping, fit.rows, error, best_error, notes=best.notes)


def write_weights(graph: ir.Graph, layer: RecurrentLayer, weights: CellWeights) -> None:
    for index, array in layer.arrays(weights).items():
        set_constant(graph, layer.node, index, array)


def better(standing: tuple[Candidate, float], others: Iterable[Candidate], sides: Sides) -> tuple[Candidate, float]:
    """The best candidate and its error, judged as many at a time as memory allows."""
    found, left = standing, iter(others)
    together = max(1, TOGETHER_BYTES // standing[0].weights.nbytes)
    while judged := list(islice(left, together)):
        for candidate, error in zip(judged, sides.errors(judged), strict=True):
            if error < found[1]:
                found = candidate, error
    return found


class Fit:
    """Candidates for one layer; `rows` counts the steps that were used."""

    def __init__(self, sides: Sides, options: Options, number: int) -> None:
        self.sides, self.options, self.seed = sides, options, [options.seed, number]
        self.layer = sides.layers[1]
        self.dense = sides.layers[0].weights()
        self.rows = 0

    def shifted(self, start: Candidate) -> list[Candidate]:
        """The means corrected."""
        if self.options.method == "lsq":
            return []
        weights = start.weights
        for part, moments in zip(self.layer.parts, self.moments(start), strict=True):
            matrix = weights.matrix(part)
            weights = weights.with_part(part, matrix, _shifted(moments, matrix))
        return [Candidate("bias", weights)]

    def solved(self, start: Candidate, turn: int) -> Iterator[Candidate]:
        """Least squares towards `start`, one candidate per damping and kind of states."""
        for teacher in (False, True) if turn == 0 else (False,):
            kind = "the dense states" if teacher else f"its own states, round {turn + 1}"
            all_moments = self.moments(start, teacher=teacher)
            for damping in self.options.dampings:
                weights, used = start.weights, damping
                for part, moments in zip(self.layer.parts, all_moments, strict=True):
                    covariance, cross = moments.covariance(), moments.cross_covariance()
                    matrix = weights.matrix(part)
                    change, own = solve(covariance, cross - matrix @ covariance, damping)
                    matrix = matrix + change
                    weights, used = weights.with_part(part, matrix, _shifted(moments, matrix)), max(used, own)
                yield Candidate("lsq", weights, used, (f"on {kind}",))

    def moments(
        self, start: Candidate, *, teacher: bool = False, batches: range | None = None, wanted: int | None = None
    ) -> list[Moments]:
        """Of z and the dense sums of the kept units, one per part, with the states that `start` makes.

        From about `wanted` steps of `batches` (default: those to fit).
        """
        batches = self.sides.runner.fit if batches is None else batches
        found: list[Moments] = []
        targets = self.dense.rows(self.sides.units)
        for dense, pruned, positions in self._blocks(start, batches, wanted or self.wanted(), teacher=teacher):
            for k, part in enumerate(self.layer.parts):
                z = pruned.sources(part, positions, start.weights)
                t = sums(part, targets, dense.sources(part, positions, self.dense))
                if k == len(found):
                    found.append(Moments(z.shape[0], z.shape[2], t.shape[2]))
                found[k].add(z, t)
        if not all(moments.is_finite() for moments in found):
            raise not_finite(self.layer)
        self.rows = found[0].count
        return found

    def _blocks(
        self, start: Candidate, batches: range, wanted: int, *, teacher: bool
    ) -> Iterator[tuple[Steps, Steps, np.ndarray]]:
        """Steps of both layers and sampled positions, a block of them at a time."""
        sides = self.sides
        (dense_cell, pruned_cell), (dense_layer, pruned_layer) = sides.cells, sides.layers
        sizes = [int(np.prod(sides.feeds("pruned", batch)[DATA].shape[:2])) for batch in batches]
        share = wanted / max(sum(sizes), 1)
        for batch in batches:
            feeds, dense_feeds = sides.feeds("pruned", batch), sides.feeds("dense", batch)
            states = dense_cell.run(dense_feeds)[0]
            own = sides.restricted(states) if teacher else pruned_cell.run(feeds, start.weights)[0]
            dense = steps(dense_layer, dense_feeds, dense_feeds[DATA], states)
            pruned = steps(pruned_layer, feeds, feeds[DATA], own)
            there = np.flatnonzero(pruned.exists)
            random = np.random.default_rng([*self.seed, batch])
            positions = there[sample(random, len(there), int(np.ceil(len(there) * share)))]
            for first in range(0, len(positions), BLOCK_ROWS):
                yield dense, pruned, positions[first : first + BLOCK_ROWS]

    def wanted(self) -> int:
        options = self.options
        return int(np.clip(options.rows_per_unknown * self.unknowns, options.min_rows, options.max_rows))

    @property
    def unknowns(self) -> int:
        """Columns of W and R together."""
        weights = self.layer.weights()
        return int(weights.w.shape[3] + weights.r.shape[3])


def _shifted(moments: Moments, matrix: np.ndarray) -> np.ndarray:
    """b' = E[t] − W E[z] [D, m]."""
    shifted: np.ndarray = moments.target_mean - np.einsum("dmn,dn->dm", matrix, moments.mean)
    return shifted
