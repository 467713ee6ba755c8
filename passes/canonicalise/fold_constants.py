"""Nodes that only depend on constants → initializers.

Small ones are known already (facts.py). The others, such as transposed weights, are computed together: one ONNX
Runtime session over just these nodes, optimisations off, with the constants as inputs so that no weight is copied
into a protobuf message. If the session refuses, each node is tried alone and those that fail stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import onnx_ir as ir
import onnxruntime

from prunec.passes.canonicalise.facts import Facts
from prunec.passes.canonicalise.tools import STANDARD, add_constant, constant, nodes_of

RANDOM = frozenset(
    "RandomNormal RandomNormalLike RandomUniform RandomUniformLike Multinomial Bernoulli Dropout".split()
)
_KEPT = frozenset("QuantizeLinear DequantizeLinear DynamicQuantizeLinear Constant".split())
_STATE = onnxruntime.capi.onnxruntime_pybind11_state
_REFUSALS: tuple[type[Exception], ...] = (
    _STATE.Fail,
    _STATE.InvalidArgument,
    _STATE.InvalidGraph,
    _STATE.InvalidProtobuf,
    _STATE.NotImplemented,
    _STATE.RuntimeException,
    RuntimeError,
    TypeError,
    ValueError,
)
TIED_MIN_ELEMENTS = 1024
MAX_GROWTH_BYTES = 4 << 20  # a folded node may add this much; a larger result must not exceed its inputs


def fold_known(model: ir.Model, facts: Facts) -> int:
    """Values that the facts know become initializers. Returns how many."""
    count = 0
    known = {node for value in facts.known if (node := value.producer()) is not None}
    for value, array in facts.known.items():
        node = value.producer()
        if node is None or node.graph is None or value.is_graph_output() or not value.uses():
            continue
        if _breaks_tie(node, known):
            continue
        _become_constant(value, array)
        count += 1
    return count


def fold_large(model: ir.Model, facts: Facts) -> int:
    """Evaluate what is left in ONNX Runtime. Returns how many values became constants."""
    nodes = _foldable(model, facts)
    if not nodes:
        return 0
    results = _evaluate(model, nodes)
    if results is None:
        results = {}
        for node in nodes:
            if all(value is None or value in results or constant(value) is not None for value in node.inputs):
                results.update(_evaluate(model, [node], results) or {})
    for value, array in results.items():
        if value.uses() and not value.is_graph_output():
            _become_constant(value, array)
    return len(results)


def _become_constant(value: ir.Value, array: np.ndarray) -> None:
    node = value.producer()
    assert node is not None and isinstance(node.graph, ir.Graph)
    name = str(value.name)
    value.name = f"{name}_folded"
    value.replace_all_uses_with(add_constant(node.graph, name, array))


def _foldable(model: ir.Model, facts: Facts) -> list[ir.Node]:
    found: list[ir.Node] = []
    computed: set[ir.Value] = set()
    for node in nodes_of(model):
        constants = all(value is None or value in computed or _is_constant(value) for value in node.inputs)
        if constants and any(value is not None for value in node.inputs) and _may_fold(node, facts):
            found.append(node)
            computed.update(node.outputs)
    return [node for node in found if not _breaks_tie(node, set(found))]


def _breaks_tie(node: ir.Node, folded: set[ir.Node]) -> bool:
    """Whether folding would leave two copies of a weight: a head that is an embedding, transposed, stays tied to it."""
    data = node.inputs[0] if node.inputs else None
    if node.op_type != "Transpose" or data is None or not data.is_initializer() or data.shape is None:
        return False
    elements = math.prod(dim for dim in data.shape if isinstance(dim, int))
    return elements >= TIED_MIN_ELEMENTS and any(use.node not in folded for use in data.uses())


def _is_constant(value: ir.Value) -> bool:
    return value.is_initializer() and not value.is_graph_input() and value.const_value is not None


def _may_fold(node: ir.Node, facts: Facts) -> bool:
    if node.domain not in STANDARD or node.op_type in RANDOM or node.op_type in _KEPT:
        return False
    if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()):
        return False
    if any(output.is_graph_output() for output in node.outputs):
        return False
    values = [value for value in [*node.inputs, *node.outputs] if value is not None and value.name]
    if any(not isinstance(value.type, ir.TensorType) or value.dtype == ir.DataType.STRING for value in values):
        return False
    before = sum(_bytes(value, facts) or 0 for value in node.inputs if value is not None)
    after = [_bytes(value, facts) for value in node.outputs if value.name]
    if any(size is None for size in after):
        return before <= MAX_GROWTH_BYTES  # a size nobody can infer, such as that of NonZero
    return sum(size or 0 for size in after) <= max(before, MAX_GROWTH_BYTES)


def _bytes(value: ir.Value, facts: Facts) -> int | None:
    shape = facts.shape(value)
    if shape is None or value.dtype is None:
        return None
    dims = [dim for dim in shape if isinstance(dim, int)]
    return math.prod(dims) * value.dtype.bitwidth // 8 if len(dims) == len(shape) else None


def _evaluate(
    model: ir.Model, nodes: list[ir.Node], known: dict[ir.Value, np.ndarray] | None = None
) -> dict[ir.Value, np.ndarray] | None:
    """The outputs of `nodes` that other nodes need; None when ONNX Runtime refuses."""
    produced = {output for node in nodes for output in node.outputs}
    arrays: dict[ir.Value, np.ndarray] = {}
    for value in _ordered(value for node in nodes for value in node.inputs):
        if known and value in known:
            arrays[value] = known[value]
        elif value not in produced and value.const_value is not None:
            arrays[value] = value.const_value.numpy()
    inside = set(nodes)
    wanted = [v for v in _ordered(produced_in_order(nodes)) if any(use.node not in inside for use in v.uses())]
    if len(nodes) == 1:
        wanted = [value for value in nodes[0].outputs if value.name]
    from prunec.backends.onnx.session import make_session

    try:
        session = make_session(_submodel(model, nodes, arrays, wanted), optimise=False)
        results = session.run(None, {str(value.name): array for value, array in arrays.items()})
    except _REFUSALS:
        return None
    return dict(zip(wanted, results, strict=True))


def produced_in_order(nodes: list[ir.Node]) -> Iterable[ir.Value]:
    return (output for node in nodes for output in node.outputs)


def _ordered(values: Iterable[ir.Value | None]) -> list[ir.Value]:
    return list(dict.fromkeys(value for value in values if value is not None))


def _submodel(
    model: ir.Model, nodes: list[ir.Node], arrays: dict[ir.Value, np.ndarray], wanted: list[ir.Value]
) -> ir.Model:
    copies = {
        value: ir.Value(name=value.name, type=value.type or ir.TensorType(ir.DataType.from_numpy(array.dtype)),
                        shape=ir.Shape(array.shape))
        for value, array in arrays.items()
    }  # fmt: skip
    inputs = list(copies.values())
    clones = []
    for node in nodes:
        clone = ir.Node(
            node.domain,
            node.op_type,
            [None if value is None else copies[value] for value in node.inputs],
            list(node.attributes.values()),
            num_outputs=len(node.outputs),
            name=node.name,
        )
        for output, copy in zip(node.outputs, clone.outputs, strict=True):
            copy.name, copy.type = output.name, output.type
            copies[output] = copy
        clones.append(clone)
    outputs = [copies[value] for value in wanted]
    graph = ir.Graph(inputs, outputs, nodes=clones, opset_imports=dict(model.opset_imports), name="constants")
    return ir.Model(graph, ir_version=model.ir_version)
