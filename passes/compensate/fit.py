"""Least squares of one layer from sampled rows, in two steps.

1. `first`: W₀ (the sliced weights) with corrected means, b' = E[t] − W₀E[z] (`bias`; FLAP's correction on the drifted
   inputs), and channel maps (`channel`, see `channel_map`).
2. `second`: the ridge regression of t on patches z towards the best of those, one candidate per damping (`lsq`), in
   moments; above `patch_limit` unknowns in the space of as many rows as memory allows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from prunec.diagnostics import PrunecError
from prunec.passes.compensate.channel_map import channel_maps, has_channel_map
from prunec.passes.compensate.judge import Candidate
from prunec.passes.compensate.layers import Double, Layer, Matrix, NormLayer
from prunec.passes.compensate.options import Options
from prunec.passes.compensate.pairs import Pairs
from prunec.passes.compensate.recurrent_layer import RecurrentLayer
from prunec.passes.compensate.rows import Index, Patches, sample
from prunec.passes.compensate.solve import RowSystem, solve
from prunec.statistics.moments import BLOCK_ROWS, Moments

ROWS_ELEMENTS = 1 << 25
"""Most elements of the float32 matrix of rows that one `RowSystem` holds (128 MiB)."""
BLOCK_ELEMENTS = 1 << 21
"""Of the rows that are taken, or go into the moments, at once (8 MiB)."""
GROUPED_ELEMENTS = 1 << 20
"""The same for layers with groups, whose matrices are small: another block costs nothing."""
MAX_ROWS_SOLVED = 2048
ROWS_PER_BATCH, FEWEST_BATCHES = 8, 64
"""Of large activations few rows are wanted: then some batches give them all, the others are not read."""
Rows = npt.NDArray[np.floating]


class Fit:
    """Candidates for one layer; `rows` counts the output positions that were used."""

    def __init__(self, pairs: Pairs, options: Options, number: int) -> None:
        self.pairs, self.layer, self.options = pairs, pairs.layer, options
        self.seed = [options.seed, number]
        self.start, self.bias = self.layer.matrix(), self.layer.bias()
        self.kind = np.float64 if self.layer.weight_type == np.float64 else np.float32
        """Of candidates: several are there at the same time."""
        self.groups, self.outputs = self.start.shape[:2]
        self.unknowns: int = self.start.shape[2] * self.start.shape[3]
        self.is_large = self.unknowns > options.patch_limit
        self.rows = 0
        self._known: Moments | None = None

    def none(self) -> Candidate:
        return Candidate("none", self.start, self.bias)

    def first(self) -> Iterator[Candidate]:
        """Candidates that need few numbers to be estimated, each made when it is asked for."""
        if self.options.method in ("bias", "auto") and self.layer.can_shift:
            moments = self._moments()
            yield Candidate("bias", self.start, self._shifted(moments, self.start))
            if isinstance(self.layer, NormLayer):
                variance = moments.covariance()[:, 0, 0]
                yield Candidate("statistics", *self.layer.reestimated(moments.mean[:, 0], variance))
        if self.options.method in ("lsq", "auto") and has_channel_map(self.layer):
            yield from channel_maps(self.pairs, self.options, self.seed)

    def second(self, start: Candidate) -> Iterator[Candidate]:
        """Least squares towards the weights of `start`."""
        if self.options.method not in ("lsq", "auto") or (self.is_large and self.groups > 1):
            return iter(())
        return self._by_rows(start) if self.is_large else self._by_moments(start)

    # -- solutions ----------------------------------------------------------------------------------------------
    def _by_moments(self, start: Candidate) -> Iterator[Candidate]:
        moments, centred = self._moments(), self.layer.can_shift
        covariance, cross = moments.into_covariances() if centred else moments.uncentred()
        towards = start.matrix.reshape(self.groups, self.outputs, self.unknowns)
        cross -= towards @ covariance
        for damping in self.options.dampings:
            change, used = solve(covariance, cross, damping, self.kind)
            matrix = np.add(change, towards, out=change).reshape(self.start.shape)
            bias = self._shifted(moments, matrix) if centred else self.bias
            yield Candidate("lsq", matrix, bias, used, (*start.basis(), *_escalated(damping, used)))

    def _by_rows(self, start: Candidate) -> Iterator[Candidate]:
        """Rows z [R, n] are the largest array of all and exist once."""
        z, t = self.gathered(min(MAX_ROWS_SOLVED, ROWS_ELEMENTS // self.unknowns))
        self.rows = len(z)
        towards = start.matrix.reshape(self.outputs, self.unknowns).astype(z.dtype, copy=False)
        centred = self.layer.can_shift
        z_mean = z.mean(axis=0, dtype=np.float64) * centred
        residual = t - z @ towards.T
        residual_mean = residual.mean(axis=0) * centred
        z -= z_mean.astype(z.dtype)
        system = RowSystem(z, residual - residual_mean)
        for damping in self.options.dampings:
            change, used = system.change(damping)
            bias = residual_mean - change @ z_mean if centred else self.bias
            notes = (*start.basis(), f"{self.unknowns} unknowns from {len(z)} rows", *_escalated(damping, used))
            change += towards
            yield Candidate("lsq", change.reshape(self.start.shape), bias, used, notes)

    # -- rows and moments ---------------------------------------------------------------------------------------
    def _moments(self) -> Moments:
        """Of patches and targets; above the patch limit their means only."""
        if self._known is None:
            moments = Moments(self.groups, self.unknowns, self.outputs, means_only=self.is_large)
            for z, t in (self.sampled if self.is_large else self.joined)(self.wanted()):
                moments.add(z, t)
                del z, t  # before the next ones are made
            if not moments.is_finite():
                raise not_finite(self.layer)
            self.rows = moments.count
            self._known = moments
        return self._known

    def gathered(self, wanted: int, batches: Sequence[int] | None = None) -> tuple[Rows, Double]:
        """z [R, n] and t [R, m] in two arrays that are filled, not joined."""
        z: Rows = np.empty((0, 0))
        t: Double = np.empty((0, 0))
        count = 0
        batches = self.pairs.runner.fit if batches is None else batches
        for own_z, own_t in self.sampled(wanted, batches):
            if not count:
                most = wanted + len(batches)  # a batch's share is rounded up
                z = np.empty((most, self.unknowns), own_z.dtype)
                t = np.empty((most, self.outputs), np.float64)
            rows = slice(count, count + own_z.shape[1])
            z[rows], t[rows] = own_z[0], own_t[0]
            count = rows.stop
        return z[:count], t[:count]

    def wanted(self) -> int:
        """Rows for moments. Many small systems (depthwise) need more rows per unknown, but not as many in all."""
        options = self.options
        if self.is_large:
            return options.min_rows
        if self.groups > 1:
            return max(4 * options.rows_per_unknown * self.unknowns, options.min_rows // 4)
        return int(np.clip(options.rows_per_unknown * self.unknowns, options.min_rows, options.max_rows))

    def sampled(self, wanted: int, batches: Sequence[int] | None = None) -> Iterator[tuple[Rows, Rows]]:
        """Blocks of z [g, R, n] and t [g, R, m], about `wanted` positions in all, from all batches (to fit) or some."""
        runner, layer = self.pairs.runner, self.layer
        batches = runner.fit if batches is None else batches
        sizes = [layer.position_count(runner.shape("dense", self.pairs.output, b)) for b in batches]
        used = spread(np.random.default_rng(self.seed), sizes, wanted)
        batches, sizes = [batches[i] for i in used], [sizes[i] for i in used]
        share = wanted / max(sum(sizes), 1)
        block_rows = max(1, min(BLOCK_ROWS, self._block_rows()))
        for batch in batches:
            pair = self.pairs.pair(batch)
            random = np.random.default_rng([*self.seed, batch])
            available = layer.position_count(pair.target.shape)
            positions = sample(random, available, int(np.ceil(available * share)))
            patches = Patches(layer, pair.x, pair.target.shape)
            for first in range(0, len(positions), block_rows):
                block = positions[first : first + block_rows]
                targets = layer.target_rows_at(pair.target, block)
                yield patches.take(block), targets.reshape(len(block), self.groups, -1).transpose(1, 0, 2)

    def joined(self, wanted: int, batches: Sequence[int] | None = None, rows: int = 0) -> Iterator[tuple[Rows, Rows]]:
        """The rows of `sampled`, about `rows` at a time or as many as memory allows: a block costs a pass over n×n."""
        return _joined(self.sampled(wanted, batches), rows or self._block_rows())

    def _block_rows(self) -> int:
        elements = BLOCK_ELEMENTS if self.groups == 1 else GROUPED_ELEMENTS
        return elements // int(self.groups * self.unknowns)

    def _shifted(self, moments: Moments, matrix: Matrix) -> Double:
        """b' = E[t] − W E[z]."""
        flat = matrix.reshape(self.groups, self.outputs, self.unknowns)
        bias: Double = moments.target_mean - np.einsum("gmn,gn->gm", flat, moments.mean)
        return bias.ravel()


def _joined(blocks: Iterable[tuple[Rows, Rows]], rows: int) -> Iterator[tuple[Rows, Rows]]:
    """The same rows, in blocks of at least `rows`: each block costs a pass over an n×n matrix."""
    waiting: list[tuple[Rows, Rows]] = []
    for block in blocks:
        waiting.append(block)
        del block
        if sum(z.shape[1] for z, _ in waiting) >= rows:
            whole, waiting = _one(waiting), []
            yield whole
            del whole
    if waiting:
        yield _one(waiting)


def spread(random: np.random.Generator, sizes: Sequence[int], wanted: int) -> Index:
    """Some of the batches, in order, that have so many rows together with at most `ROWS_PER_BATCH` of each."""
    order = random.permutation(len(sizes))
    enough = int(np.searchsorted(np.cumsum(np.minimum(np.asarray(sizes)[order], ROWS_PER_BATCH)), wanted)) + 1
    found: Index = np.sort(order[: max(enough, FEWEST_BATCHES)])
    return found


def _one(blocks: list[tuple[Rows, Rows]]) -> tuple[Rows, Rows]:
    if len(blocks) == 1:
        return blocks[0]
    return np.concatenate([z for z, _ in blocks], axis=1), np.concatenate([t for _, t in blocks], axis=1)


def _escalated(asked: float, used: float) -> tuple[str, ...]:
    return () if used == asked else (f"damping {asked:g} failed to factorise, {used:g} was used",)


def not_finite(layer: Layer | RecurrentLayer) -> PrunecError:
    return PrunecError(
        "PC330",
        "the activations are not finite",
        where=layer.name,
        hint="look at the calibration data and at the model in ONNX Runtime: it overflows or divides by zero",
    )
