"""What is lost at every width of a cell.

local     Σ over consumers of  tr(W_R [(C⁻¹)_RR]⁻¹ W_Rᵀ) / tr(W C Wᵀ): the joint least-squares error at their outputs
          without the channels R, for every width from one elimination (`elimination`). A convolution counts every
          kernel position as a layer of its own over the same channels, as criterion "obs" does.
measured  the error of the model's own outputs when this cell alone is cut and its consumers refitted by those least
          squares, at the shares `LEVELS` (`statistics.cut_errors`). It says what a layer's error is worth: a gate's is
          worth little, that of the layer before the outputs everything. Between levels the local curve is scaled by
          measured / local, interpolated on a logarithmic scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from prunec.criteria.base import ScoreContext, consumed_rows, where
from prunec.graph import Consumer, Group
from prunec.graph.rules.base import attribute
from prunec.plan.cells import Cell
from prunec.plan.elimination import Double, Problem, eliminate
from prunec.plan.parts import Part, gram
from prunec.statistics.blas_threads import blas_threads
from prunec.statistics.cut_errors import CutErrors

CONVOLUTIONS = ("Conv", "ConvTranspose", "FusedConv", "QLinearConv", "ConvInteger")
LEVELS = (0.25, 0.5, 0.75)
SMALLEST = 1e-6
"""Relative losses below it are rounding."""


@dataclass(frozen=True)
class Curves:
    """Curves of a model's cells. `greedy`: channels go in the order of least loss, otherwise in that of `scores`.

    Without `measured` the local loss has to do.
    """

    context: ScoreContext
    groups: Mapping[str, Group]
    scores: Mapping[str, np.ndarray]
    measured: CutErrors | None
    greedy: bool

    def rank(self, cell: Cell, stays: np.ndarray) -> tuple[np.ndarray, Double]:
        """The cell's group-local channels, best first, and by how much the loss rises when each goes.

        `stays`: bool [cell.size], channels that are kept whatever they are worth; they come first.
        """
        key = (cell.group, cell.local.tobytes(), stays.tobytes())
        if key not in self._known:
            with blas_threads(1):  # the last bits of a result depend on how many there are
                self._known[key] = self._rank(cell, stays)
        return self._known[key]

    @cached_property
    def _known(self) -> dict[tuple[str, bytes, bytes], tuple[np.ndarray, Double]]:
        return {}

    def _rank(self, cell: Cell, stays: np.ndarray) -> tuple[np.ndarray, Double]:
        scores = self.scores[cell.group][cell.local]
        order = np.lexsort((cell.local, -scores, ~stays))
        count = cell.size - int(stays.sum())
        group = self.groups[cell.group]
        parts, problems = list[Part](), list[Problem]()
        for consumer, index in self.context.readers(group):
            for part, problem in self._problems(consumer, index, cell):
                parts.append(part)
                problems.append(problem)
        if parts:
            given = None if self.greedy else order[::-1]
            gone, each = eliminate(problems, cell.size, count, given, stays)
            problems.clear()
            del problem  # with its matrices
            rises = each.sum(axis=1)
        else:
            gone, rises = order[::-1][:count], self._by_scores(cell, scores[order][::-1][:count])
        if self.measured is not None:
            rises = self._measured(self.measured, cell, parts, gone, rises)
        kept = order[: cell.size - count]
        found = np.concatenate([kept, gone[::-1]])
        last = float(rises[-1]) if count else 0.0
        return cell.local[found], np.concatenate([np.full(len(kept), last), rises[::-1]])

    def _by_scores(self, cell: Cell, scores: Double) -> Double:
        group = self.groups[cell.group]
        message = "the share of the scores that goes stands for the loss: no weighted consumer has a covariance"
        self.context.note("PC229", message, where(group))
        total = float(scores.sum())
        return np.asarray(scores / total if total > 0 else np.full(len(scores), 1 / max(len(scores), 1)))

    def _measured(
        self, errors: CutErrors, cell: Cell, parts: Sequence[Part], gone: np.ndarray, rises: Double
    ) -> Double:
        """`rises` scaled so that the curve goes through what is measured at `LEVELS`."""
        local = np.concatenate([[0.0], np.cumsum(rises)])
        counts = np.unique([max(round(level * cell.size), 1) for level in LEVELS if level * cell.size <= len(gone)])
        if not len(counts):
            return rises
        found = [self._error(errors, cell, parts, gone[:count]) for count in counts]
        factors = np.log([max(e, SMALLEST) / max(local[n], SMALLEST) for e, n in zip(found, counts, strict=True)])
        scale = np.exp(np.interp(np.arange(len(local)), counts, factors))
        return np.diff(np.maximum.accumulate(local * scale))

    def _error(self, errors: CutErrors, cell: Cell, parts: Sequence[Part], gone: np.ndarray) -> float:
        alive = np.ones(self.context.analysis.channel_count, bool)
        alive[self.groups[cell.group].channels[cell.local[gone]]] = False
        refits = [refit for part in parts if (refit := part.refit(gone)) is not None]
        return min(errors.error(alive, refits), 1e6)

    def _problems(self, consumer: Consumer, index: np.ndarray, cell: Cell) -> Iterator[tuple[Part, Problem]]:
        seen = self.context.layer(consumer)
        if seen.covariance is None:
            return
        local = np.full(self.groups[cell.group].size + 1, -1, np.int64)
        local[cell.local] = np.arange(cell.size)
        channel = local[index]
        node = self.context.nodes[consumer.node]
        groups = int(attribute(node, "group", 1)) if node.op_type in CONVOLUTIONS else 1
        size = len(channel) // groups
        places = [slice(first, first + size) for first in range(0, len(channel), size)]
        parts = [Part(node.name or "", i, channel[own], own, seen) for i, own in enumerate(places)]
        weight = consumed_rows(self.context, consumer)
        grams = [gram(weight[part.own]) for part in parts]
        del weight
        total = sum(part.energy(own) for part, own in zip(parts, grams, strict=True))
        for part, own in zip(parts, grams, strict=True):
            if total > 0 and (part.channel >= 0).any():
                own /= total
                yield part, Problem(part.inverse(), own, part.channel)
