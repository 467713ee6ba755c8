"""What is left of the values that one expert makes once it is gone: a loop over experts, each a branch of its own.

A single position picked off the axis of the experts (a column of the gate, "is this token mine") decides about a whole
branch. When the position is dead, values behind it are one of three things:

    zero    the gate multiplies them: whoever adds them may leave them out
    empty   they have no rows, because no token was picked: whoever writes them somewhere may leave that out
    moot    anything; only a product with one of the other two makes something of it

`follow` carries that through every node, `owners` finds the nodes that are computed for one expert alone. A value is
gone once all its terms are, a term once any of its channels is: e₁ + e₂ is gone when both are, e₁ · e₂ when one is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from prunec.graph.shapes import dims, length

Terms = tuple[frozenset[int], ...]


@dataclass(frozen=True)
class Vanishing:
    """`terms` hold ids of channels (class ids once the analysis is done)."""

    terms: Terms
    kind: Literal["zero", "empty", "moot"]

    def ids(self) -> np.ndarray:
        return np.array(sorted(frozenset[int]().union(*self.terms)), np.int64)

    def renumbered(self, labels: np.ndarray) -> Vanishing:
        """With the classes of its ids."""
        return Vanishing(tuple(frozenset(labels[list(term)].tolist()) for term in self.terms), self.kind)

    def is_gone(self, alive: np.ndarray) -> bool:
        """`alive`: bool per class id."""
        return all(any(not alive[channel] for channel in term) for term in self.terms)


_ZERO_STAYS = frozenset(
    """Identity Cast Neg Abs Relu LeakyRelu PRelu Sqrt Sign Floor Ceil Round Tanh Sin Erf Gelu Mish Swish HardSwish Elu
    Selu Celu Softsign Transpose Reshape Squeeze Unsqueeze Flatten Expand Tile Slice Split Gather GatherElements CumSum
    ReduceSum ReduceMean ReduceMax ReduceMin ReduceL1 ReduceL2 ReduceSumSquare ReduceProd Div""".split()
)
"""f(0, …) = 0."""
_PRODUCTS = frozenset(("Mul", "And", "MatMul", "Einsum"))
_ROWS_STAY = frozenset(
    """Identity Cast Neg Abs Relu LeakyRelu PRelu Sqrt Sign Floor Ceil Round Tanh Sin Erf Gelu Mish Swish HardSwish Elu
    Selu Celu Softsign Sigmoid HardSigmoid Softplus Exp Log Clip Reciprocal Pow Add Sub Mul Div Sum Max Min Equal And
    Transpose Squeeze Unsqueeze Reshape Flatten Expand Softmax LayerNormalization RMSNormalization""".split()
)
"""No rows in, no rows out."""
_ADDITIONS = frozenset(("Add", "Sum"))
_WRITERS = frozenset(("ScatterND", "ScatterElements"))
SINKS = _ADDITIONS | _WRITERS | {"Where"}
"""Operators that go on without an operand that is gone."""


def follow(node: ir.Node, known: Mapping[str, Vanishing], axes: Iterable[frozenset[int]]) -> Vanishing | Terms | None:
    """What the outputs of `node` are once operands of it are gone, by what is known of these.

    None: nothing is, they are what they were. Terms alone: they belong to different experts in a way that no cut can
    follow. `axes`: ids of whole axes that single positions were picked from; something of each always stays.
    """
    found = {i: known[v.name or ""] for i, v in enumerate(node.inputs) if v is not None and v.name in known}
    if not found:
        return None
    if node.op_type in SINKS and _goes_on(node, found):
        return None
    if node.op_type in _ADDITIONS and _are_parts(node, found):
        terms = tuple(dict.fromkeys(term for own in found.values() for term in own.terms))
        single = frozenset(next(iter(term)) for term in terms if len(term) == 1)
        return None if any(axis <= single for axis in axes) else Vanishing(terms, "zero")
    joined = _join([own.terms for own in found.values()])
    if joined is None:
        return tuple(term for own in found.values() for term in own.terms)
    return Vanishing(joined, _kind(node, found))


def _goes_on(node: ir.Node, found: Mapping[int, Vanishing]) -> bool:
    """Whether the node does without the operands in `found`."""
    shape = dims(node.outputs[0])
    if node.op_type in _ADDITIONS:
        others = [dims(value) for i, value in enumerate(node.inputs) if i not in found]
        return _all(found.values(), "zero") and shape is not None and shape in others
    if 0 in found and node.op_type in _WRITERS:
        return False
    if node.op_type in _WRITERS:
        adds = node.attributes.get_string("reduction", "none") == "add" and 2 in found and found[2].kind == "zero"
        return (adds or any(own.kind == "empty" for own in found.values())) and _join(
            [own.terms for own in found.values()]
        ) is not None
    condition = found.get(0)
    return condition is not None and condition.kind == "zero" and 2 not in found and dims(node.inputs[2]) == shape and (
        1 not in found or found[1].terms == condition.terms
    )  # fmt: skip


def _are_parts(node: ir.Node, found: Mapping[int, Vanishing]) -> bool:
    """Whether the node adds up what single experts give, and nothing else."""
    alike = all(dims(value) == dims(node.outputs[0]) for value in node.inputs)
    return alike and len(found) == len(node.inputs) and _all(found.values(), "zero")


def _kind(node: ir.Node, found: Mapping[int, Vanishing]) -> Literal["zero", "empty", "moot"]:
    kinds = {i: own.kind for i, own in found.items()}
    op = node.op_type
    if op == "NonZero" and kinds.get(0) == "zero":
        return "empty"
    if op in _PRODUCTS and "zero" in kinds.values():
        return "zero"
    if kinds.get(0) == "zero" and (op in _ZERO_STAYS or (op in ("Gemm", "Conv") and len(node.inputs) < 3)):
        return "zero"
    if op in _ROWS_STAY and "empty" in kinds.values():
        return "empty"
    if op in ("Gather", "GatherND") and kinds.get(1) == "empty":
        return "empty"
    if kinds.get(0) == "empty":
        along = node.attributes.get_int("axis", 0)
        if op in ("Gather", "Split", "Slice") and (op == "Slice" or length(node.inputs[0], along) is not None):
            return "empty"
        if op in ("MatMul", "Gemm") and length(node.inputs[0], -1) is not None:
            return "empty"
    return "moot"


def _all(found: Iterable[Vanishing], kind: str) -> bool:
    return all(own.kind == kind for own in found)


def _join(several: list[Terms]) -> Terms | None:
    """Gone when any of them is."""
    if all(terms == several[0] for terms in several):
        return several[0]
    if all(len(terms) == 1 for terms in several):
        return (frozenset[int]().union(*(terms[0] for terms in several)),)
    return None


def _dropped(reader: ir.Node, place: int, known: Mapping[str, Vanishing]) -> frozenset[int] | None:
    """Channels without which an operand does not matter: what is written nowhere, or chosen by nobody."""
    deciding = {"Where": {1: (0,)}, "ScatterND": {1: (2,), 2: (1,)}, "ScatterElements": {1: (2,), 2: (1,)}}
    for index in deciding.get(reader.op_type, {}).get(place, ()):
        value = reader.inputs[index]
        own = known.get(value.name or "") if value is not None else None
        if own is not None and own.kind != "moot" and len(own.terms) == 1:
            return own.terms[0]
    return None


def owners(graph: ir.Graph, known: Mapping[str, Vanishing]) -> dict[str, frozenset[int]]:
    """Node → channels any of whose deaths ends the need for it. Nodes that are always needed are left out."""
    found: dict[str, frozenset[int]] = {}
    if not known:
        return found
    for node in reversed(list(graph)):
        needs: set[frozenset[int] | None] = set()
        for output in node.outputs:
            own = known.get(output.name or "")
            if own is not None:
                needs.add(own.terms[0] if len(own.terms) == 1 else None)
            elif output.is_graph_output():
                needs.add(None)
            else:
                needs |= {_dropped(reader, i, known) or found.get(reader.name or "") for reader, i in output.uses()}
        need = needs.pop() if len(needs) == 1 else None
        if need is not None:
            found[node.name or ""] = need
    return found
