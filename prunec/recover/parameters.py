"""Which initializers training may change: the weights of layers, and their shifts (biases and what norms hold).

Shifts are what PERP trains (Zimmer et al., arXiv 2312.15230): biases, the scales and offsets of norms, and the vectors
that norms and biases become where they are written as Add or Mul. Everything else stays: tables that are looked up,
running statistics, masks, constants of formulas.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from prunec.diagnostics import PrunecError
from prunec.graph.reads import reads
from prunec.graph.shapes import dims, is_constant
from prunec.graph.weights import QUANTISERS

_WEIGHTS: Mapping[str, tuple[int, ...]] = {
    "Conv": (1,), "ConvTranspose": (1,), "Einsum": (0, 1, 2, 3), "GRU": (1, 2), "Gemm": (0, 1), "LSTM": (1, 2),
    "MatMul": (0, 1), "RNN": (1, 2),
}  # fmt: skip
_SHIFTS: Mapping[str, tuple[int, ...]] = {
    "BatchNormalization": (1, 2), "Conv": (2,), "ConvTranspose": (2,), "GRU": (3,), "Gemm": (2,),
    "GroupNormalization": (1, 2), "InstanceNormalization": (1, 2), "LSTM": (3,), "LayerNormalization": (1, 2),
    "PRelu": (1,), "RMSNormalization": (1,), "RNN": (3,), "SimplifiedLayerNormalization": (1,),
}  # fmt: skip
_ON_INTEGERS = ("QLinear", "QAttention", "QGemm", "DynamicQuantize")
_VECTORS = frozenset({"Add", "Sub", "Mul", "Div"})


@dataclass(frozen=True)
class Trainable:
    """Names of initializers; no name is in both."""

    weights: tuple[str, ...]
    shifts: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.weights, *self.shifts)


def trainable(model: ir.Model) -> Trainable:
    """In graph order. A tensor counts if every node that reads it does so as a weight, or every one as a shift."""
    varying = varying_values(model)
    roles: dict[str, set[str]] = {}
    for node in model.graph:
        for value, role in _roles(node, varying):
            roles.setdefault(value.name or "", set()).add(role)
    found = {name: next(iter(own)) for name, own in roles.items() if len(own) == 1}
    return Trainable(*(tuple(n for n, role in found.items() if role == kind) for kind in ("weight", "shift")))


def _roles(node: ir.Node, varying: frozenset[ir.Value]) -> Iterator[tuple[ir.Value, str]]:
    """Every constant that the node reads, also for inner graphs, and what it is there."""
    for value in reads(node):
        if is_constant(value):
            yield value, _role(node, value, varying)


def _role(node: ir.Node, value: ir.Value, varying: frozenset[ir.Value]) -> str:
    places = {i for i, own in enumerate(node.inputs) if own is value}
    is_own = node.domain in ("", "ai.onnx") and bool(places)
    if not is_own or value.dtype != ir.DataType.FLOAT or value.is_graph_output() or _size(value) == 1:
        return "other"
    is_turned = node.op_type == "Transpose" and _feeds_weights(node.outputs[0])
    if is_turned or places <= set(_WEIGHTS.get(node.op_type, ())):
        return "weight"
    is_written_out = node.op_type in _VECTORS and _is_vector(value) and any(own in varying for own in node.inputs)
    return "shift" if is_written_out or places <= set(_SHIFTS.get(node.op_type, ())) else "other"


def _feeds_weights(turned: ir.Value) -> bool:
    """Whether a transposed constant is nothing but a weight."""
    uses = list(turned.uses())
    return bool(uses) and not turned.is_graph_output() and all(
        use.node.domain in ("", "ai.onnx") and use.idx in _WEIGHTS.get(use.node.op_type, ()) for use in uses
    )  # fmt: skip


def varying_values(model: ir.Model) -> frozenset[ir.Value]:
    """Values that depend on the inputs and on weights; all others are the same in the dense and the pruned model."""
    found: set[ir.Value] = set()
    for node in model.graph:
        own = reads(node)
        reads_weights = any(is_constant(v) and v.dtype == ir.DataType.FLOAT and _size(v) > 1 for v in own)
        reads_data = any(not is_constant(v) for v in own)
        if (reads_weights and reads_data) or any(v in found for v in own):
            found.update(node.outputs)
    return frozenset(found)


def refuse_quantised(model: ir.Model) -> None:
    """PC340 where weights or activations are integers on a grid: training would leave it."""
    for node in model.graph:
        if node.op_type in QUANTISERS or "Integer" in node.op_type or node.op_type.startswith(_ON_INTEGERS):
            raise PrunecError(
                "PC340",
                f"a quantised model cannot be trained ({node.op_type})",
                where=node.name or node.op_type,
                hint="recover the model before it is quantised, or leave --recover out",
            )


def _size(value: ir.Value) -> int:
    return math.prod(d if isinstance(d, int) else 1 for d in dims(value) or ())


def _is_vector(value: ir.Value) -> bool:
    """Whether exactly one axis is longer than 1."""
    return sum(d != 1 for d in dims(value) or ()) == 1
