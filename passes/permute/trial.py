"""What an order is worth after solving: each layer it touches, solved cheaply with and without it.

The sequential driver runs the dense model beside itself and hands the layers over one by one; nothing is written. An
order is worth taking where the held-out errors of its layers, relative to their outputs, fall in sum.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from prunec.passes.compensate.fit import Fit
from prunec.passes.compensate.options import CompensationRecord, Options
from prunec.passes.compensate.pairs import Pairs
from prunec.passes.compensate.recurrent_sides import Sides
from prunec.passes.permute.find import Found
from prunec.passes.permute.layers import HeldLayer
from prunec.passes.solve import LayerProblem
from prunec.passes.solve.portfolio import quick_error, spread
from prunec.passes.sparsify.problems import problems
from prunec.statistics.collect import CalibrationData

ROWS_PER_UNKNOWN = 16
"""Enough to tell which of two masks is better, a quarter of what the masks themselves are chosen from."""
PROBE_OUTPUTS = 64
"""Outputs that are solved, where only inputs are reordered."""


class Trial:
    """A `LayerSolver` that solves and throws away. `results`: by layer and group, errors without and with its order."""

    baseline: ir.Model

    def __init__(
        self, layers: Sequence[HeldLayer], found: Sequence[Found], channel_count: int, *, shifts: bool
    ) -> None:
        """`shifts`: whether biases will be corrected, so that errors are those of centred outputs."""
        self.layers = {layer.name: layer for layer in layers}
        self.found, self.channel_count, self.shifts = found, channel_count, shifts
        self.results: dict[str, dict[str, list[float]]] = {}
        self._touched = {name for order in found for name in order.layers}

    def start(self, cut: ir.Model) -> None:
        self.baseline = cut.clone()

    def mask_tables(self, model: ir.Model, calibration: CalibrationData, options: Options) -> list[CompensationRecord]:
        """Tables have no order to try."""
        return []

    def takes(self, layer: str) -> bool:
        return layer in self._touched

    def describe(self, layer: str) -> str:
        if layer not in self._touched:
            return ""
        digest, wanted = hashlib.sha256(), self.layers[layer].wanted
        for order in self.found:
            digest.update(order.group.encode() + order.classes.tobytes() + order.source.tobytes())
        return f"trial {wanted.pattern} {wanted.level!r} {self.shifts} {digest.hexdigest()}"

    def result(self, layer: str) -> dict[str, Any] | None:
        return self.results.get(layer)

    def restore(self, layer: str, result: dict[str, Any]) -> None:
        self.results[layer] = result

    def errors(self, group: str) -> tuple[float, float]:
        """Without and with the order of a group, summed over its layers."""
        own = [result[group] for result in self.results.values() if group in result]
        return sum(before for before, _ in own), sum(after for _, after in own)

    def solve(self, model: ir.Model, pairs: Pairs, options: Options, number: int) -> CompensationRecord:
        name = pairs.layer.name
        self.results[name] = {}
        if pairs.refusal() is None:
            fit = Fit(pairs, replace(options, method="auto" if self.shifts else "none"), number)
            own, _ = problems(fit, ROWS_PER_UNKNOWN)
            for order in self.found:
                if name in order.layers:
                    self._compare(order, self.layers[name], own)
        return CompensationRecord(name, "none", 0.0, 0, math.nan, math.nan)

    def solve_recurrent(self, model: ir.Model, sides: Sides, options: Options, number: int) -> CompensationRecord:
        """Never called: `takes` takes none."""
        raise AssertionError("a recurrent layer has no order to try")

    def _compare(self, order: Found, layer: HeldLayer, own: Sequence[LayerProblem]) -> None:
        source = np.arange(self.channel_count)
        source[order.classes] = order.source
        columns, rows = layer.columns(source), layer.rows(source)
        pattern, level = layer.wanted.pattern, layer.wanted.level
        if columns is None and pattern.rows == 1:
            return  # outputs in another order are the same problem
        errors = [0.0, 0.0]
        total = sum(problem.held_out.power for problem in own) or 1.0
        for problem in own:
            outputs = np.arange(len(problem.weight))
            probe = spread(len(outputs), pattern.quantum, PROBE_OUTPUTS) if pattern.rows == 1 else outputs
            other = problem if columns is None else problem.permuted(columns)
            pairs = ((problem, probe), (other, probe if rows is None or pattern.rows == 1 else rows))
            for place, (part, index) in enumerate(pairs):
                error = quick_error(part.rows(index), pattern, level)
                errors[place] += error * problem.held_out.power / total
        self.results[layer.name][order.group] = errors
