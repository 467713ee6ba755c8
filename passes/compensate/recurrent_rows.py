"""What the sums of a recurrent layer read, step by step: its data, and the state that each step starts from.

ONNX Runtime runs the cell; the state before a step is the output of the step before it, for a backward direction of the
step after it, and the first state at the end of each sequence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from scipy.special import expit

from prunec.backends.onnx.segment import Segment, proto_of
from prunec.graph.rules.base import attribute, given
from prunec.graph.shapes import constant
from prunec.passes.compensate.layers import Double
from prunec.passes.compensate.pairs import widened
from prunec.passes.compensate.recurrent_layer import (
    FIRST_STATE,
    LENGTHS,
    RESET,
    CellWeights,
    Part,
    RecurrentLayer,
    W,
)

Rows = npt.NDArray[np.floating]
Feeds = dict[int, np.ndarray]
"""What a cell reads at run time, by input index."""
OUTPUTS = ("states", "last state", "last cell")


class Cell:
    """A recurrent node on its own: data and weights in, all states out."""

    def __init__(self, model: ir.Model, layer: RecurrentLayer, threads: int) -> None:
        self.model, self.layer, self.threads = model, layer, threads
        self._segments: dict[tuple[int, ...], Segment] = {}

    def run(self, feeds: Feeds, weights: CellWeights | None = None) -> list[np.ndarray]:
        """Y [T, D, b, H], the last state [D, b, H], and for an LSTM the last cell."""
        node = self.layer.node
        given_ = dict(feeds)
        constants = self.layer.arrays(self.layer.weights() if weights is None else weights)
        for index, value in enumerate(node.inputs):
            array = constant(value) if value is not None and index not in given_ else None
            if array is not None:
                given_[index] = array
        kind = given_[W].dtype
        with np.errstate(over="ignore"):
            given_.update({i: np.ascontiguousarray(array.astype(kind)) for i, array in constants.items()})
        named = {f"{self.layer.name}.{index}": array for index, array in given_.items()}
        key = tuple(sorted(given_))
        if key not in self._segments:
            self._segments[key] = self._segment(named, key)
        return [widened(array) for array in self._segments[key].run(named).values()]

    def _segment(self, feeds: dict[str, np.ndarray], indices: tuple[int, ...]) -> Segment:
        proto = proto_of(self.layer.node)
        del proto.input[:], proto.output[:]
        proto.input.extend(f"{self.layer.name}.{i}" if i in indices else "" for i in range(max(indices) + 1))
        proto.output.extend(OUTPUTS[: 3 if proto.op_type == "LSTM" else 2])
        return Segment(self.model, [proto], [], feeds, list(proto.output), self.threads)


@dataclass(frozen=True)
class Steps:
    """One batch of one cell: data [T, b, I], the states before each step [D, T, b, H], and which steps exist [T, b]."""

    data: np.ndarray
    before: np.ndarray
    exists: npt.NDArray[np.bool_]
    clip: float

    def sources(self, part: Part, positions: np.ndarray, weights: CellWeights) -> Rows:
        """z [D, R, n] of one sum at the given positions (flat, over time and batch)."""
        directions = len(self.before)
        data = self.data.reshape(-1, self.data.shape[2])[positions]
        x = np.broadcast_to(data, (directions, *data.shape))
        h = self.before.reshape(directions, -1, self.before.shape[3])[:, positions]
        found = [x] if part.reads_input else []
        if "reset state" in part.reads:
            found.append((_reset(weights, x, h, self.clip) * h).astype(h.dtype))
        elif part.reads_state:
            found.append(h)
        return np.concatenate(found, axis=2)


def steps(layer: RecurrentLayer, feeds: Feeds, data: np.ndarray, states: np.ndarray) -> Steps:
    """`states` is Y; the first state and the lengths are those of the feeds or constants of the node."""
    time, _, batch, hidden = states.shape
    first = read(layer, feeds, FIRST_STATE)
    lengths = read(layer, feeds, LENGTHS)
    lengths = np.full(batch, time) if lengths is None else lengths.astype(np.int64)
    exists = np.arange(time)[:, None] < lengths
    before = np.zeros((states.shape[1], time, batch, hidden), states.dtype)
    for direction, backwards in enumerate(layer.backwards):
        own = states[:, direction]
        start = np.zeros((batch, hidden), states.dtype) if first is None else first[direction]
        if backwards:
            before[direction, :-1] = own[1:]
            ends = np.flatnonzero(lengths > 0)
            before[direction, lengths[ends] - 1, ends] = start[ends]
        else:
            before[direction, 1:] = own[:-1]
            before[direction, 0] = start
    return Steps(widened(data), before, exists, float(attribute(layer.node, "clip", np.inf)))


def sums(part: Part, weights: CellWeights, z: Rows) -> Double:
    """W x + R s + b [D, R, gates·H] of the rows of `weights`."""
    product: Double = np.matmul(z, weights.matrix(part).astype(z.dtype).transpose(0, 2, 1)).astype(np.float64)
    return product + weights.bias(part)[:, None]


def _reset(weights: CellWeights, x: Rows, h: Rows, clip: float) -> Rows:
    """The reset gate of a GRU [D, R, H]."""
    gate = sums(Part(slice(RESET, RESET + 1), ("input", "state")), weights, np.concatenate([x, h], axis=2))
    found: Rows = expit(np.clip(gate, -clip, clip))
    return found


def read(layer: RecurrentLayer, feeds: Feeds, index: int) -> np.ndarray | None:
    """An optional input: from the feeds, or the node's constant."""
    if index in feeds:
        return feeds[index]
    return constant(layer.node.inputs[index]) if given(layer.node, index) else None
