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
FEWEST_BATCHES, ENOUGH_VALUES = 64, 1 << 23
"""Held-out batches that decide: all, or as many as show that many of the layer's outputs."""
SCREENED = 4
"""Every so many of those batches a candidate meets first, and the others only if it is the best of all there."""
Seen = dict[int, float]
"""Squared errors by batch."""


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
        self._totals: Seen = {}
        self._standing: tuple[Candidate, Seen] | None = None
        self.segment: Segment | None = None
        behind = pairs.layer.node if pairs.residual is None else pairs.residual.add
        self.tail = find_tail(behind.outputs[0])
        self.tail_segment: Segment | None = None
        self.is_one = pairs.residual is None and not self.layer.adds_bias_outside
        """Whether a layer and its tail run in one session."""
        self.between = None if pairs.residual is None else self.layer.constant_between()

    def errors(self, candidates: Sequence[Candidate]) -> list[float]:
        """In the candidates' order; inf where an output or a weight is not finite."""
        seen: list[Seen] = [{} for _ in candidates]
        found = self._errors(candidates, seen, self.batches())
        if len(candidates) == 1:
            self._standing = candidates[0], seen[0]
        return found

    def best(self, standing: tuple[Candidate, float], others: Iterable[Candidate]) -> tuple[Candidate, float]:
        """The candidate with the lowest error and that error; the standing one unless another is lower.

        As many candidates as fit into `CANDIDATE_BYTES` are judged in one pass over the data, on some of the batches
        first: what is worse there than another is not looked at any further.
        """
        found, batches = standing, self.batches()
        known = self._standing[1] if self._standing is not None and self._standing[0] is standing[0] else {}
        first = batches[::SCREENED] if len(batches) >= 2 * SCREENED else []
        for together in _by_size(others):
            seen: list[Seen] = [{} for _ in together]
            if first:
                place = int(np.argmin(self._errors([found[0], *together], [known, *seen], first)))
                own = slice(place - 1, place) if place else slice(0)
                together, seen = together[own], seen[own]
            for candidate, squares, error in zip(together, seen, self._errors(together, seen, batches), strict=True):
                if error < found[1]:
                    found, known = (candidate, error), squares
        self._standing = found[0], known
        return found

    def batches(self) -> list[int]:
        """The held-out batches that decide."""
        held_out = self.pairs.runner.held_out
        values = math.prod(self.pairs.runner.shape("dense", self.pairs.output, held_out[0]))
        count = min(len(held_out), max(FEWEST_BATCHES, ENOUGH_VALUES // max(values, 1)))
        return [held_out[i] for i in sample(np.random.default_rng(0), len(held_out), count)]

    def _errors(self, candidates: Sequence[Candidate], seen: Sequence[Seen], batches: Sequence[int]) -> list[float]:
        """`seen`: of each candidate what is known already; it is run on the other batches, and these are added."""
        missing = {batch: [i for i, own in enumerate(seen) if batch not in own] for batch in batches}
        used = {i for own in missing.values() for i in own}
        constants = {i: _constants(self.layer, candidates[i]) for i in used}
        for batch, own in missing.items():
            if not own:
                continue
            pair = self.pairs.pair(batch)
            wanted = self.behind(pair.reference)
            self._totals[batch] = _square(wanted)
            for i in own:
                y = self.outputs(pair.x, constants[i], candidates[i].bias)
                if pair.drifted is not None:
                    y = y + pair.drifted
                seen[i][batch] = _square(_difference(wanted, y if self.is_one else self.behind(y)))
        total = sum(self._totals[batch] for batch in batches) or 1.0
        found = [sum(own[batch] for batch in batches) / total for own in seen]
        return [error if math.isfinite(error) else math.inf for error in found]

    def outputs(self, x: np.ndarray, constants: dict[str, np.ndarray], bias: Double) -> np.ndarray:
        """Of the layer, or of its tail (`is_one`)."""
        feeds = {self.layer.data.name or "": x, **constants}
        if self.segment is None:
            nodes = self.layer.judged()
            weights = [value for value in reads(self.layer.node) if value.is_initializer() and value.name not in feeds]
            used = {name for node in nodes for name in node.input}
            weights = [value for value in weights if value.name in used]
            wanted = [self.layer.node.outputs[0].name or ""]
            if self.is_one and self.tail is not None:
                nodes += [proto_of(node) for node in self.tail.nodes]
                weights += [v for node in self.tail.nodes for v in reads(node) if v.is_initializer()]
                weights, wanted = list(dict.fromkeys(weights)), [self.tail.output]
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
