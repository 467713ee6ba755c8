"""The dense and the pruned form of a recurrent layer on the same batches, and the error between what they put out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from prunec.passes.compensate.pairs import Kept
from prunec.passes.compensate.recurrent_layer import DATA, LENGTHS, CellWeights, R, RecurrentLayer
from prunec.passes.compensate.recurrent_rows import Cell, Feeds, read
from prunec.passes.compensate.runner import SequentialRunner, Side


@dataclass(frozen=True)
class Candidate:
    method: str
    weights: CellWeights
    damping: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sides:
    """The dense and the pruned layer on the same batches."""

    models: tuple[ir.Model, ir.Model]
    layers: tuple[RecurrentLayer, RecurrentLayer]
    runner: SequentialRunner
    kept: Kept
    threads: int

    @cached_property
    def cells(self) -> tuple[Cell, Cell]:
        dense, pruned = (Cell(m, la, self.threads) for m, la in zip(self.models, self.layers, strict=True))
        return dense, pruned

    @cached_property
    def units(self) -> np.ndarray | None:
        """The kept hidden units as a mask [H], None where all are."""
        axes = self.kept.analysis.use_axes.get((self.layers[0].name, R))
        return None if axes is None or axes[2] is None else self.kept.alive[axes[2]]

    def feeds(self, side: Side, batch: int) -> Feeds:
        names = self.layers[side == "pruned"].activations()
        return {index: self.runner.value(side, name, batch) for index, name in names.items()}

    def refusal(self) -> str | None:
        """Why the two layers cannot be compared."""
        rows = 0
        name = self.layers[0].activations()[DATA]
        for batch in (*self.runner.fit, *self.runner.held_out):
            dense = self.kept.restrict(name, self.feeds("dense", batch)[DATA])
            if dense.shape != self.feeds("pruned", batch)[DATA].shape:
                return "the shape of its input depends on the data and differs between the models"
            lengths = read(self.layers[0], self.feeds("dense", batch), LENGTHS)
            rows += (dense.size if lengths is None else int(lengths.sum())) * (batch in self.runner.fit)
        return None if rows else "no calibration sample reaches it"

    def restricted(self, states: np.ndarray) -> np.ndarray:
        return states if self.units is None else states[..., self.units]

    def errors(self, candidates: Sequence[Candidate]) -> list[float]:
        """‖y_d − y‖²/‖y_d‖² over all outputs that somebody reads, on the held-out batches; inf where not finite."""
        used = [i for i, output in enumerate(self.layers[1].node.outputs) if output.uses() or output.is_graph_output()]
        found, total = np.zeros(len(candidates)), 0.0
        for batch in self.runner.held_out:
            wanted = self.cells[0].run(self.feeds("dense", batch))
            targets = [self.restricted(wanted[i]).astype(np.float64) for i in used]
            total += sum(float(np.square(target).sum()) for target in targets)
            feeds = self.feeds("pruned", batch)
            for k, candidate in enumerate(candidates):
                outputs = self.cells[1].run(feeds, candidate.weights)
                found[k] += sum(float(np.square(t - outputs[i]).sum()) for t, i in zip(targets, used, strict=True))
        errors = found / (total or 1.0)
        return [float(error) if math.isfinite(error) else math.inf for error in errors]
