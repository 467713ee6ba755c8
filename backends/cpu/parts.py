"""A model in parts that take turns: generated code, and ONNX Runtime for what has none.

A part is as many nodes of its kind as can run before one of the other kind has to. Values go from part to part by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx
import onnx_ir as ir
from onnx import helper

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.lower.candidates import Choose, by_rule
from prunec.backends.cpu.lower.lowering import Refusal, lower
from prunec.backends.cpu.lower.program import Program
from prunec.backends.cpu.lower.state import Unsupported, dtype_of, shape_of
from prunec.backends.onnx.segment import proto_of
from prunec.diagnostics import PrunecError
from prunec.graph.reads import reads
from prunec.graph.shapes import dims, is_constant


@dataclass(frozen=True)
class Part:
    """Nodes in order. `program` is None for a part that runs in ONNX Runtime."""

    nodes: tuple[ir.Node, ...]
    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]
    program: Program | None


@dataclass(frozen=True)
class Split:
    """All parts in the order in which they run, and why some nodes have no generated code."""

    parts: tuple[Part, ...]
    refusals: tuple[Refusal, ...]

    @property
    def in_float(self) -> dict[str, str]:
        """Quantised layers of generated parts that compute in float32, with the reason."""
        programs = (part.program for part in self.parts)
        return {node: why for program in programs if program is not None for node, why in program.in_float.items()}

    @property
    def is_whole(self) -> bool:
        return len(self.parts) == 1 and self.parts[0].program is not None


def split_model(model: ir.Model, isa: Isa, choose: Choose = by_rule) -> Split:
    """The parts of a model that `prepare` made ready.

    Raises:
        PrunecError PC454: it has no node that code can be generated for.
    """
    nodes = list(model.graph)
    inputs = [value for value in model.graph.inputs if not is_constant(value)]
    program, refusals = lower(nodes, inputs, list(model.graph.outputs), isa, choose) if nodes else (Program(), [])
    if nodes and not refusals:
        return Split((Part(tuple(nodes), tuple(inputs), tuple(model.graph.outputs), program),), ())
    found = list(refusals)
    while True:
        foreign = {refusal.node for refusal in found}
        parts, more = _attempt(nodes, foreign, isa, choose)
        if not more:
            break
        found += more
    if not any(part.program for part in parts):
        why = "; ".join(f"{r.node.name or r.node.op_type}: {r.reason}" for r in found[:3]) or "it has no nodes"
        message = f"nothing of this model has generated code: {why}"
        raise PrunecError("PC454", message, where="--target", hint="use --target onnx")
    return Split(tuple(parts), tuple(found))


def _attempt(
    nodes: Sequence[ir.Node], foreign: set[ir.Node], isa: Isa, choose: Choose
) -> tuple[list[Part], list[Refusal]]:
    parts, refusals = [], []
    for own, is_generated in _runs(nodes, foreign):
        inputs, outputs = _borders(own)
        program, more = None, list[Refusal]()
        if is_generated:
            try:
                for value in (*inputs, *outputs):  # between parts only what both sides can hold
                    shape_of(value), dtype_of(value)
                program, more = lower(own, inputs, outputs, isa, choose)
            except Unsupported as reason:
                more = [Refusal(node, f"beside nodes that have none: {reason}") for node in own]
        parts.append(Part(tuple(own), tuple(inputs), tuple(outputs), program))
        refusals += more
    return parts, refusals


def _runs(nodes: Sequence[ir.Node], foreign: set[ir.Node]) -> list[tuple[list[ir.Node], bool]]:
    """The nodes in runs of one kind: of all that are ready the kind of the last run first."""
    waiting, done = list(nodes), set[ir.Node]()
    own = set(nodes)
    runs: list[tuple[list[ir.Node], bool]] = []
    is_generated = True
    while waiting:
        taken: list[ir.Node] = []
        for node in waiting:
            before = {value.producer() for value in reads(node)} & own
            if (node not in foreign) == is_generated and before <= done:
                taken.append(node)
                done.add(node)
        if taken:
            runs.append((taken, is_generated))
            waiting = [node for node in waiting if node not in done]
        is_generated = not is_generated
    return runs


def _borders(nodes: Sequence[ir.Node]) -> tuple[list[ir.Value], list[ir.Value]]:
    """Values that come from elsewhere, and those that are needed elsewhere."""
    own = set(nodes)
    read = dict.fromkeys(v for node in nodes for v in reads(node) if not is_constant(v))
    inputs = [value for value in read if value.producer() not in own]
    made = [value for node in nodes for value in node.outputs if value.name]
    outputs = [v for v in made if v.is_graph_output() or any(user not in own for user, _ in v.uses())]
    return inputs, outputs


def onnx_part(model: ir.Model, part: Part) -> onnx.ModelProto:
    """A part as a model of its own."""
    weights = dict.fromkeys(v for node in part.nodes for v in reads(node) if is_constant(v))
    tensors = []
    for value in weights:
        assert value.const_value is not None
        tensor = ir.serde.serialize_tensor(ir.Tensor(value.const_value.numpy(), dtype=value.dtype, name=value.name))
        tensors.append(tensor)
    graph = helper.make_graph(
        [proto_of(node) for node in part.nodes], "part", [_info(v) for v in part.inputs],
        [_info(v) for v in part.outputs], tensors,
    )  # fmt: skip
    opsets = [helper.make_opsetid(domain, version) for domain, version in model.graph.opset_imports.items()]
    return helper.make_model(graph, ir_version=model.ir_version, opset_imports=opsets)


def _info(value: ir.Value) -> onnx.ValueInfoProto:
    shape = [d if isinstance(d, int) else None for d in dims(value) or ()]
    dtype = int(value.dtype) if value.dtype is not None else int(ir.DataType.FLOAT)
    return helper.make_tensor_value_info(value.name or "", dtype, shape)
