"""The driver: nodes in order, each by its rule, and what the outputs of the graph need in the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.lower.candidates import Choose, by_rule
from prunec.backends.cpu.lower.geometry import wanted_borders
from prunec.backends.cpu.lower.program import Buffer, Program, Tensor, plain_strides
from prunec.backends.cpu.lower.rules import rule_of
from prunec.backends.cpu.lower.state import State, Unsupported, dtype_of, shape_of


@dataclass(frozen=True)
class Refusal:
    """A node without generated code, and why."""

    node: ir.Node
    reason: str


def lower(
    nodes: Sequence[ir.Node],
    inputs: Sequence[ir.Value],
    outputs: Sequence[ir.Value],
    isa: Isa,
    choose: Choose = by_rule,
) -> tuple[Program, list[Refusal]]:
    """The program of `nodes`, which compute `outputs` from `inputs` and constants; all refusals if there are any.

    `choose` picks the kernels of products.

    A refused node's outputs are taken as given, so that one look finds everything that is missing.
    """
    state = State(isa, wanted_borders(nodes), choose=choose)
    for number, value in enumerate(inputs):
        state.program.inputs[value.name or ""] = _input(value, number, state)
    refusals: list[Refusal] = []
    done: set[ir.Node] = set()
    for node in nodes:
        if node in done:
            continue
        try:
            done.update(_lower_node(state, node))
        except Unsupported as reason:
            refusals.append(Refusal(node, str(reason)))
            _take_as_given(state, node)
    if refusals:
        return state.program, refusals
    tensors = [state.tensor(value) for value in outputs]  # all before the first: what is in 8 bits has none yet
    for number, (value, found) in enumerate(zip(outputs, tensors, strict=True)):
        shape, dtype = shape_of(value), dtype_of(value)
        buffer = Buffer("output", dtype, max(found.size, 1), number=number)
        result = Tensor(shape, dtype, buffer, 0, plain_strides(shape))
        if not _retarget(state, found, result, tensors):
            state.copy(found, result)
        state.program.outputs[value.name or ""] = result
    return state.program, refusals


def _lower_node(state: State, node: ir.Node) -> Sequence[ir.Node]:
    rule = rule_of(node)
    if rule is None:
        raise Unsupported("no generated code for this operator")
    for value in (*node.inputs, *node.outputs):
        if value is not None and value.name:
            shape_of(value)
    if any(0 in shape_of(value) for value in node.outputs if value.name):
        raise Unsupported("a tensor without elements")
    found: Sequence[ir.Node] = rule(state, node)
    return found


def _input(value: ir.Value, number: int, state: State) -> Tensor:
    shape, dtype = shape_of(value), dtype_of(value)
    buffer = Buffer("input", dtype, math.prod(shape), number=number)
    tensor = Tensor(shape, dtype, buffer, 0, plain_strides(shape))
    state.tensors[value.name or ""] = tensor
    return tensor


def _take_as_given(state: State, node: ir.Node) -> None:
    for value in node.outputs:
        try:
            state.define(value, state.plain(shape_of(value), dtype_of(value)))
        except Unsupported:
            continue


def _retarget(state: State, found: Tensor, result: Tensor, outputs: Sequence[Tensor]) -> bool:
    """Let the step that writes `found` write the output itself: it must be plain, written once and read by nobody."""
    if not found.is_plain() or found.buffer.place != "arena" or not found.has_order(result.strides):
        return False
    users = [i for i, step in enumerate(state.program.steps) if found.buffer in step.buffers]
    if len(users) != 1 or sum(other.buffer is found.buffer for other in outputs) != 1:
        return False
    step = state.program.steps[users[0]]
    if step.buffers[-1] is not found.buffer or found.buffer in step.buffers[:-1]:
        return False
    state.program.steps[users[0]] = type(step)(step.call, (*step.buffers[:-1], result.buffer), step.nodes)
    return True
