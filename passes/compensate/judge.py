"""The true held-out error of candidates: the layer is run with each candidate's weights, in the weights' own type.

What is compared is what comes out behind the layer's addition, if there is one, and its activation (see `tail`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunec.backends.onnx.segment import Segment, proto_of
from prunec.graph.reads import reads
from prunec.passes.compensate.layers import Layer
from prunec.passes.compensate.pairs import Pairs, widened
from prunec.passes.compensate.rows import sample
from prunec.passes.compensate.tail import find_tail

Double = npt.NDArray[np.float64]
CANDIDATE_BYTES = 4 * 1024**2
FEWEST_BATCHES, ENOUGH_VALUES = 64, 1 << 25
"""Held-out batches that decide: all, or as many as show that many of the layer's outputs."""
SCREENED = 4
"""Every so many of those batches a candidate meets first, and the others only if it is the best of all there."""


@dataclass(frozen=True)
class Candidate:
    """New weights for a layer (see `layers`), how they were made, and what is worth saying about that."""

    method: str
    matrix: npt.NDArray[np.floating]
    bias: Double
    damping: float = 0.0
    notes: tuple[str, ...] = field(default=())

    def basis(self) -> tuple[str, ...]:
        """A note for what is fitted on top of this."""
        return () if self.method in ("none", "bias") else (f"towards {self.method} at damping {self.damping:g}",)


class Judge:
    """Errors of one layer's candidates, ‖f(reference) − f(y + s_p)‖²/‖f(reference)‖², over the held-out batches."""

    def __init__(self, model: ir.Model, pairs: Pairs, threads: int) -> None:
        self.model, self.pairs, self.layer, self.threads = model, pairs, pairs.layer, threads
        self.segment: Segment | None = None
        behind = pairs.layer.node if pairs.residual is None else pairs.residual.add
        self.tail = find_tail(behind.outputs[0])
        self.tail_segment: Segment | None = None
        self.between = None if pairs.residual is None else self.layer.constant_between()

    def errors(self, candidates: Sequence[Candidate]) -> list[float]:
        """In the candidates' order; inf where an output or a weight is not finite."""
        return self._errors(candidates, self.batches())

    def best(self, standing: tuple[Candidate, float], others: Iterable[Candidate]) -> tuple[Candidate, float]:
        """The candidate with the lowest error and that error; the standing one unless another is lower.

        As many candidates as fit into `CANDIDATE_BYTES` are judged in one pass over the data, on some of the batches
        first: what is worse there than another is not looked at any further.
        """
        found, batches = standing, self.batches()
        first = batches[::SCREENED] if len(batches) >= 2 * SCREENED else []
        before = self._errors([standing[0]], first) if first else []
        for together in _by_size(others):
            if first:
                seen = [*before, *self._errors(together, first)]
                place = int(np.argmin(seen))
                together = together[place - 1 : place] if place else []
            for candidate, error in zip(together, self.errors(together), strict=True):
                if error < found[1]:
                    found = candidate, error
                    before = [seen[place]] if first else []
        return found

    def batches(self) -> list[int]:
        """The held-out batches that decide."""
        held_out = self.pairs.runner.held_out
        values = math.prod(self.pairs.runner.shape("dense", self.pairs.output, held_out[0]))
        count = min(len(held_out), max(FEWEST_BATCHES, ENOUGH_VALUES // max(values, 1)))
        return [held_out[i] for i in sample(np.random.default_rng(0), len(held_out), count)]

    def _errors(self, candidates: Sequence[Candidate], batches: Sequence[int]) -> list[float]:
        constants = [_constants(self.layer, candidate) for candidate in candidates]
        sums = np.zeros(len(candidates))
        total = 0.0
        for batch in batches if candidates else ():
            pair = self.pairs.pair(batch)
            wanted = self.behind(pair.reference)
            total += _square(wanted)
            for i, candidate in enumerate(candidates):
                y = self.outputs(pair.x, constants[i], candidate.bias)
                if pair.drifted is not None:
                    y = y + pair.drifted
                sums[i] += _square(_difference(wanted, self.behind(y)))
        found = sums / (total or 1.0)
        return [float(error) if math.isfinite(error) else math.inf for error in found]

    def outputs(self, x: np.ndarray, constants: dict[str, np.ndarray], bias: Double) -> np.ndarray:
        feeds = {self.layer.data.name or "": x, **constants}
        if self.segment is None:
            nodes = self.layer.judged()
            weights = [value for value in reads(self.layer.node) if value.is_initializer() and value.name not in feeds]
            used = {name for node in nodes for name in node.input}
            weights = [value for value in weights if value.name in used]
            wanted = [self.layer.node.outputs[0].name or ""]
            self.segment = Segment(self.model, nodes, weights, feeds, wanted, self.threads)
        (y,) = self.segment.run(feeds).values()
        y = widened(y)
        if self.layer.adds_bias_outside and bias.any():
            shape = [1] * y.ndim
            shape[self.layer.out_axis] = -1
            y = y + bias.reshape(shape).astype(y.dtype)
        return y

    def behind(self, y: np.ndarray) -> np.ndarray:
        """f(y): the tail in the pruned model's own type."""
        if self.between is not None:
            y = y + widened(self.between)
        if self.tail is None:
            return y
        kind = self.layer.node.outputs[0].dtype
        feeds = {self.tail.input: y if kind is None else y.astype(kind.numpy(), copy=False)}
        if self.tail_segment is None:
            weights = {v: None for node in self.tail.nodes for v in reads(node) if v.is_initializer()}
            protos = [proto_of(node) for node in self.tail.nodes]
            self.tail_segment = Segment(self.model, protos, weights, feeds, [self.tail.output], self.threads)
        (found,) = self.tail_segment.run(feeds).values()
        return widened(found)


def _by_size(candidates: Iterable[Candidate]) -> Iterator[list[Candidate]]:
    together: list[Candidate] = []
    for candidate in candidates:
        together.append(candidate)
        if sum(own.matrix.nbytes for own in together) >= CANDIDATE_BYTES:
            yield together
            together = []
    if together:
        yield together


def _constants(layer: Layer, candidate: Candidate) -> dict[str, np.ndarray]:
    kind = layer.weight_type
    arrays = layer.judged_arrays(candidate.matrix, candidate.bias)
    with np.errstate(over="ignore"):
        return {name: np.ascontiguousarray(array.astype(kind, copy=False)) for name, array in arrays.items()}


def _difference(wanted: np.ndarray, found: np.ndarray) -> np.ndarray:
    """wanted − found, where that can be in the memory of `found`."""
    if not found.flags.writeable or found.dtype != wanted.dtype:
        return np.asarray(wanted - found)
    np.subtract(wanted, found, out=found)
    return found


def _square(array: np.ndarray) -> float:
    """Σ a²; overflow becomes inf."""
    flat = np.ascontiguousarray(array).reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.dot(flat, flat))
