"""What an order is worth after solving: each layer it touches, solved cheaply with and without it.

The sequential driver runs the dense model beside itself and hands the layers over one by one; nothing is written. An
order is worth taking where the held-out errors of its layers, relative to their outputs, fall in sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from prunec.passes.compensate.fit import Fit
from prunec.passes.compensate.options import CompensationRecord, Options
from prunec.passes.compensate.pairs import Pairs
from prunec.passes.permute.find import Found
from prunec.passes.permute.layers import HeldLayer
from prunec.passes.solve import LayerProblem, solve
from prunec.passes.solve.portfolio import spread
from prunec.passes.sparsify.problems import problems

ROWS_PER_UNKNOWN = 16
"""Enough to tell which of two masks is better, a quarter of what the masks themselves are chosen from."""
PROBE_OUTPUTS = 64
"""Outputs that are solved, where only inputs are reordered."""


class Trial:
    """A `LayerSolver` that solves and throws away. `errors` by group: without and with its order, summed over layers."""

    baseline: ir.Model

    def __init__(
        self, layers: Sequence[HeldLayer], found: Sequence[Found], channel_count: int, *, shifts: bool
    ) -> None:
        """`shifts`: whether biases will be corrected, so that errors are those of centred outputs."""
        self.layers = {layer.name: layer for layer in layers}
        self.found, self.channel_count, self.shifts = found, channel_count, shifts
        self.errors = {order.group: [0.0, 0.0] for order in found}
        self._touched = {name for order in found for name in order.layers}

    def start(self, cut: ir.Model) -> None:
        self.baseline = cut.clone()

    def takes(self, layer: str) -> bool:
        return layer in self._touched

    def solve(self, model: ir.Model, pairs: Pairs, options: Options, number: int) -> CompensationRecord:
        name = pairs.layer.name
        if pairs.refusal() is None:
            fit = Fit(pairs, replace(options, method="auto" if self.shifts else "none"), number)
            own, _ = problems(fit, ROWS_PER_UNKNOWN)
            for order in self.found:
                if name in order.layers:
                    self._compare(order, self.layers[name], own)
        return CompensationRecord(name, "none", 0.0, 0, math.nan, math.nan)

    def is_better(self, group: str) -> bool:
        before, after = self.errors[group]
        return after < before

    def _compare(self, order: Found, layer: HeldLayer, own: Sequence[LayerProblem]) -> None:
        source = np.arange(self.channel_count)
        source[order.classes] = order.source
        columns, rows = layer.columns(source), layer.rows(source)
        pattern, level = layer.wanted.pattern, layer.wanted.level
        if columns is None and pattern.rows == 1:
            return  # outputs in another order are the same problem
        total = sum(problem.held_out.power for problem in own) or 1.0
        for problem in own:
            outputs = np.arange(len(problem.weight))
            probe = spread(len(outputs), pattern.quantum, PROBE_OUTPUTS) if pattern.rows == 1 else outputs
            other = problem if columns is None else problem.permuted(columns)
            pairs = ((problem, probe), (other, probe if rows is None or pattern.rows == 1 else rows))
            for place, (part, index) in enumerate(pairs):
                few = part.rows(index)
                error = solve(few, pattern, level, "fast").chosen.error_held_out
                self.errors[order.group][place] += error * problem.held_out.power / total

