"""Everything the graph decides before it runs, until nothing more follows: shapes, constants, shape arithmetic."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from prunec.passes.canonicalise.cast_like import replace_cast_like
from prunec.passes.canonicalise.facts import Facts, gather_facts
from prunec.passes.canonicalise.fold_constants import fold_known, fold_large
from prunec.passes.canonicalise.freeze_shapes import freeze_shapes
from prunec.passes.canonicalise.inline_if import InlineIf
from prunec.passes.canonicalise.names import UniqueNames
from prunec.passes.canonicalise.tools import nodes_of

MAX_ROUNDS = 6


class Evaluate(ir.passes.InPlacePass):
    """Rounds of: gather facts; write down types; fold; freeze shapes; drop what is unused. Then store all shapes."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        changed = 0
        for _ in range(MAX_ROUNDS):
            facts = gather_facts(model)
            store_types(model, facts)
            if replace_cast_like(model):
                facts = gather_facts(model)
            count = fold_known(model, facts) + freeze_shapes(model, facts) + fold_large(model, facts)
            if InlineIf()(model).modified:
                UniqueNames()(model)
                count += 1
            RemoveUnusedNodesPass()(model)
            changed += count
            if count == 0:
                break
        store_shapes(model, facts)
        return ir.passes.PassResult(model, modified=changed > 0)


class InferShapes(ir.passes.InPlacePass):
    """Types and shapes of all values from one walk; nothing is rewritten."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        facts = gather_facts(model)
        store_types(model, facts)
        store_shapes(model, facts)
        return ir.passes.PassResult(model, modified=True)


def store_types(model: ir.Model, facts: Facts) -> None:
    for value, proto in facts.types.items():
        if value.type is None:
            value.type = ir.serde.deserialize_type_proto_for_type(proto)


def store_shapes(model: ir.Model, facts: Facts) -> None:
    """Write the shapes into the values. A graph output keeps the names of its dynamic axes."""
    for node in nodes_of(model):
        for value in node.outputs:
            shape = facts.shape(value)
            if shape is None:
                continue
            old = value.shape if value.is_graph_output() else None
            if old is not None and len(old) == len(shape):
                dims = [new if isinstance(new, int) else before for before, new in zip(old, shape, strict=True)]
                value.shape = ir.Shape(dims)
            else:
                value.shape = ir.Shape(list(shape))
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.shape = ir.Shape(value.const_value.shape.numpy())
                value.type = value.type or ir.TensorType(value.const_value.dtype)
