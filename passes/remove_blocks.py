"""Remove whole blocks (`graph.branches`): y = x + f(x) becomes y = x, and everything that only f needed goes.

The reference is the dense model with the block's contribution multiplied by zero:

    branch   y = x + 0·f(x)          layer   y' = x + 0·(y − x)

`remove_blocks` leaves an `Identity` under the old names, so that the layers around it can still be paired with those of
the dense model; `drop_identities` takes it out in the end.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import IdentityEliminationPass, RemoveUnusedNodesPass

from prunec.graph.branches import Block
from prunec.passes.mask_statistics import constant
from prunec.passes.rewire import insert_behind


def remove_blocks(model: ir.Model, blocks: Collection[Block]) -> ir.Model:
    """New model without the blocks."""
    removed = model.clone()
    values = _values(removed)
    for block in blocks:
        source, old = values[block.input], values[block.output]
        producer = old.producer()
        assert producer is not None
        name = producer.name
        identity = ir.node("Identity", [source])
        ir.convenience.replace_nodes_and_values(
            removed.graph, producer, [producer], [identity], [old], [identity.outputs[0]]
        )
        identity.name = name
        values[block.output] = identity.outputs[0]
    RemoveUnusedNodesPass()(removed)
    return removed


def mask_blocks(model: ir.Model, blocks: Collection[Block]) -> ir.Model:
    """The reference: new model with the blocks' contributions multiplied by zero."""
    masked = model.clone()
    values = _values(masked)
    for number, block in enumerate(blocks):
        source, output = values[block.input], values[block.output]
        name = f"prunec.block.{number}"
        zero = constant(masked.graph, f"{name}.zero", np.zeros((), _dtype(output)))
        if block.branch is not None:
            add, branch = output.producer(), values[block.branch]
            assert add is not None
            gone = _node("Mul", [branch, zero], name)
            masked.graph.insert_before(add, gone)
            add.replace_input_with(list(add.inputs).index(branch), gone.outputs[0])
            continue

        def without(y: ir.Value, x: ir.Value = source, nought: ir.Value = zero, base: str = name) -> list[ir.Node]:
            change = _node("Sub", [y, x], f"{base}.change")
            gone = _node("Mul", [change.outputs[0], nought], f"{base}.gone")
            return [change, gone, _node("Add", [x, gone.outputs[0]], base)]

        values[block.output] = insert_behind(masked.graph, output, without)
    return masked


def gate_blocks(model: ir.Model, blocks: Collection[Block]) -> tuple[ir.Model, list[str]]:
    """New model with one more bool input per block, in order: true keeps the block, false removes it."""
    gated = model.clone()
    names = []
    values = _values(gated)
    for number, block in enumerate(blocks):
        gate = ir.Value(name=f"prunec.gate.{number}", type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape(()))
        gated.graph.inputs.append(gate)
        source, output = values[block.input], values[block.output]

        def gate_it(y: ir.Value, x: ir.Value = source, on: ir.Value = gate, n: int = number) -> list[ir.Node]:
            return [_node("Where", [on, y, x], f"prunec.gated.{n}")]

        values[block.output] = insert_behind(gated.graph, output, gate_it)
        names.append(gate.name or "")
    return gated, names


def drop_identities(model: ir.Model) -> None:
    """Take out, in place, the nodes that `remove_blocks` left."""
    IdentityEliminationPass()(model)


def _values(model: ir.Model) -> dict[str, ir.Value]:
    values = {value.name or "": value for value in model.graph.inputs}
    return values | {value.name or "": value for node in model.graph for value in node.outputs}


def _node(op_type: str, inputs: list[ir.Value], name: str) -> ir.Node:
    node = ir.node(op_type, inputs, name=name)
    node.outputs[0].name = f"{name}.out"
    return node


def _dtype(value: ir.Value) -> np.dtype:
    return np.dtype((value.dtype or ir.DataType.FLOAT).numpy())
