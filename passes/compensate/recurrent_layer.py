"""Recurrent layers as sums: what an LSTM, GRU or RNN adds up before its activations, for G gates and D directions.

    a_t = W x_t + R s_t + W_b + R_b,   s_t = h_{t−1}

for all gates at once, except the candidate of a GRU, whose state part passes the reset gate r: before the product
(s_t = r_t ∘ h_{t−1}), or behind it with `linear_before_reset`, where W x_t + W_b and R h_{t−1} + R_b are two sums of
their own. Each such sum is a `Part`, a linear layer that can be refitted; what follows (peepholes, activations, gates)
stays as it is. Weights are float64: w [D, G, H, I], r [D, G, H, H], b [D, 2, G, H] with (W_b, R_b).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from prunec.graph.cost import FLOAT_TYPES
from prunec.graph.rules.base import attribute, given
from prunec.graph.shapes import constant, is_constant
from prunec.passes.compensate.layers import Double, Patch

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
DATA, W, R, B, LENGTHS, FIRST_STATE, CELL_STATE = range(7)
RESET = 1
"""Place of r among the gates (z, r, h) of a GRU."""

Source = Literal["input", "state", "reset state"]


@dataclass(frozen=True)
class Part:
    """One sum: the gates it makes and what it reads."""

    gates: slice
    reads: tuple[Source, ...]

    @property
    def reads_input(self) -> bool:
        return "input" in self.reads

    @property
    def reads_state(self) -> bool:
        return self.reads != ("input",)


@dataclass(frozen=True)
class CellWeights:
    """The weights of one layer; see the module for shapes."""

    w: Double
    r: Double
    b: Double

    @property
    def nbytes(self) -> int:
        return self.w.nbytes + self.r.nbytes + self.b.nbytes

    def matrix(self, part: Part) -> Double:
        """[D, gates·H, n], columns in the order of `part.reads`."""
        blocks = ([self.w] if part.reads_input else []) + ([self.r] if part.reads_state else [])
        joined = np.concatenate([block[:, part.gates] for block in blocks], axis=3)
        return np.ascontiguousarray(joined.reshape(len(joined), -1, joined.shape[3]))

    def bias(self, part: Part) -> Double:
        """Of shape [D, gates·H]."""
        own = self.b[:, :, part.gates] * np.array([part.reads_input, part.reads_state])[:, None, None]
        total: Double = own.sum(axis=1)
        return total.reshape(len(total), -1)

    def with_part(self, part: Part, matrix: Double, bias: Double) -> CellWeights:
        """The same with one sum replaced; of two biases the first takes the change."""
        w, r, b = self.w.copy(), self.r.copy(), self.b.copy()
        directions, hidden, inputs = w.shape[0], w.shape[2], w.shape[3]
        blocks = matrix.reshape(directions, -1, hidden, matrix.shape[2])
        if part.reads_input:
            w[:, part.gates] = blocks[..., :inputs]
        if part.reads_state:
            r[:, part.gates] = blocks[..., inputs if part.reads_input else 0 :]
        change = (bias - self.bias(part)).reshape(directions, -1, hidden)
        b[:, 0 if part.reads_input else 1, part.gates] += change
        return CellWeights(w, r, b)

    def rows(self, units: np.ndarray | None) -> CellWeights:
        """The rows of the given units (a bool mask [H], None: all), for every column."""
        if units is None:
            return self
        return CellWeights(self.w[:, :, units], self.r[:, :, units], self.b[:, :, :, units])


@dataclass(frozen=True)
class RecurrentLayer:
    """A node whose sums can be refitted."""

    node: ir.Node

    @property
    def name(self) -> str:
        return self.node.name or ""

    @property
    def backwards(self) -> tuple[bool, ...]:
        """Per direction whether time runs from the end."""
        found = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
        return found[attribute(self.node, "direction", "forward")]

    @property
    def parts(self) -> tuple[Part, ...]:
        every: tuple[Source, ...] = ("input", "state")
        if self.node.op_type != "GRU":
            return (Part(slice(0, GATES[self.node.op_type]), every),)
        first = Part(slice(0, 2), every)
        if attribute(self.node, "linear_before_reset", 0):
            return first, Part(slice(2, 3), ("input",)), Part(slice(2, 3), ("state",))
        return first, Part(slice(2, 3), ("input", "reset state"))

    def weights(self) -> CellWeights:
        gates = GATES[self.node.op_type]
        w, r = (self._array(index) for index in (W, R))
        shape = (len(w), gates, w.shape[1] // gates)
        b = self._array(B) if given(self.node, B) else np.zeros((len(w), 2 * w.shape[1]))
        return CellWeights(w.reshape(*shape, -1), r.reshape(*shape, -1), b.reshape(shape[0], 2, *shape[1:]))

    def _array(self, index: int) -> Double:
        value = constant(self.node.inputs[index])
        assert value is not None
        return value.astype(np.float64)

    def arrays(self, weights: CellWeights) -> Patch:
        """The node's constants; the bias is left out where the node has none and needs none."""
        directions = len(weights.w)
        found: Patch = {
            W: weights.w.reshape(directions, -1, weights.w.shape[3]),
            R: weights.r.reshape(directions, -1, weights.r.shape[3]),
        }
        if given(self.node, B) or weights.b.any():
            found[B] = weights.b.reshape(directions, -1)
        return found

    def activations(self) -> dict[int, str]:
        """What it reads at run time, name by input: its data; lengths and first states that are no constants."""
        read = [(i, self.node.inputs[i]) for i in (DATA, LENGTHS, FIRST_STATE, CELL_STATE) if given(self.node, i)]
        return {i: value.name or "" for i, value in read if value is not None and not is_constant(value)}


def recurrent_layer(node: ir.Node) -> RecurrentLayer | str | None:
    """The layer, why it stays as it is, or None where its weights are computed at run time."""
    weights = [node.inputs[i] for i in (W, R, B) if given(node, i)]
    if not all(is_constant(value) for value in weights):
        return None
    for value in weights[:2]:
        assert value is not None
        if value.dtype not in FLOAT_TYPES:
            return "the weight is not floating point"
        if len(list(value.uses())) > 1 or value.is_graph_output():
            return f"its weight {value.name} is shared with other nodes"
    if is_constant(node.inputs[DATA]):
        return "its data is a constant"
    if attribute(node, "layout", 0):
        return "its data has the batch first"
    if node.op_type == "GRU" and not attribute(node, "linear_before_reset", 0):
        activations = attribute(node, "activations", ["Sigmoid"])
        if any(str(name).lower() != "sigmoid" for name in activations[::2]):
            return "its reset gate is not a sigmoid"
    return RecurrentLayer(node)
