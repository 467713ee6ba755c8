"""Which layers compute in 8 bits, and which values between them are kept in 8 bits.

A layer is a convolution or product by constant weights. What it reads is quantised, and so is what a convolution
gives, behind its ReLU or clip: runtimes fuse no less. Operators that only carry values (residual additions, pools,
concatenations, changes of shape) are drawn in where everything they read is quantised and something quantised reads
what they give.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import onnx_ir as ir

from prunec.graph.shapes import dims, is_constant
from prunec.passes.compensate.find import find_layers
from prunec.passes.compensate.layers import ConvLayer, GemmLayer, Layer, MatMulLayer

MOVES = frozenset(
    {"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "DepthToSpace", "SpaceToDepth"}
)
"""Give what they read, so they share its grid."""
CARRIERS = MOVES | {"Add", "Concat", "AveragePool", "GlobalAveragePool"}
CLIPS = frozenset({"Relu", "Clip"})
"""A range that starts or ends where they cut does their work."""


@dataclass(frozen=True)
class Placement:
    """`layers` by node name; `values` that get a grid of their own, in graph order.

    `shared`: value → whose grid it has.
    `readers`: value → nodes that read it in 8 bits; all of them where a layer makes it, for else it is kept twice.
    """

    layers: dict[str, Layer]
    values: tuple[str, ...]
    shared: dict[str, str]
    readers: dict[str, tuple[str, ...]] = field(default_factory=dict)


def place(model: ir.Model, left_out: Collection[str] = ()) -> Placement:
    """For a canonical or pruned model with named nodes and values; `left_out` layers stay as they are."""
    layers = {layer.name: layer for layer in quantisable(model) if layer.name not in left_out}
    wanted = {str(layer.data.name) for layer in layers.values()}
    wanted |= {
        str(settled(layer.node).name)
        for layer in layers.values()
        if isinstance(layer, ConvLayer) and not settled(layer.node).is_graph_output()
    }
    carriers = _carriers(model, layers, wanted)
    shared: dict[str, str] = {}
    order = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    names = [str(value.name) for value in order if value.name in wanted]
    for value in order:
        node = value.producer()
        if node is not None and node.name in carriers and node.op_type in MOVES and settled(node).name in wanted:
            source = str(node.inputs[0].name) if node.inputs[0] is not None else ""
            shared[str(settled(node).name)] = shared.get(source, source)
    made = {str(settled(node).name) for node in model.graph if node.name in layers or node.name in carriers}
    readers: dict[str, tuple[str, ...]] = {}
    for value in order:
        if value.name in wanted:
            nodes = [use.node for use in value.uses()]
            some = [n for n in nodes if value.name in made or n.name in layers or n.name in carriers]
            readers[str(value.name)] = tuple(dict.fromkeys(str(node.name) for node in some))
    own = tuple(name for name in names if name not in shared)
    return Placement(layers, own, shared, readers)


def quantisable(model: ir.Model) -> list[Layer]:
    """Layers that have an 8-bit form in ONNX's operators."""
    return [layer for layer in find_layers(model)[0] if isinstance(layer, Layer) and _has_form(layer)]


def settled(node: ir.Node) -> ir.Value:
    """The output of `node` behind the clips that alone read it."""
    value = node.outputs[0]
    while not value.is_graph_output():
        uses = list(value.uses())
        if len(uses) != 1 or uses[0].node.op_type not in CLIPS or uses[0].idx != 0:
            break
        if not all(given is None or is_constant(given) for given in list(uses[0].node.inputs)[1:]):
            break
        value = uses[0].node.outputs[0]
    return value


def _has_form(layer: Layer) -> bool:
    node = layer.node
    if layer.data.dtype != ir.DataType.FLOAT or layer.weight_type.name != "float32":
        return False
    if isinstance(layer, ConvLayer):
        return not layer.is_transposed
    if isinstance(layer, GemmLayer):
        scaled = any(node.attributes.get_float(name, 1.0) != 1 for name in ("alpha", "beta"))
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        return not scaled and layer.weight_index == 1 and (bias is None or len(dims(bias) or ()) == 1)
    return isinstance(layer, MatMulLayer) and layer.weight_index == 1 and len(dims(node.inputs[1]) or ()) == 2


def _carriers(model: ir.Model, layers: Collection[str], wanted: set[str]) -> set[str]:
    """Names of the operators that carry values in 8 bits; what they give joins `wanted`.

    Forwards all that are fed in 8 bits, then backwards without those whose result nothing reads in 8 bits.
    """
    found: dict[str, ir.Value] = {}
    for node in model.graph:
        if node.op_type in CARRIERS and node.domain in ("", "ai.onnx"):
            value = settled(node)
            floats = [v for v in node.inputs if v is not None and not _is_side(node, v)]
            if floats and all(v.name in wanted for v in floats) and not value.is_graph_output():
                found[str(node.name)] = value
                wanted.add(str(value.name))
    for name, value in reversed(list(found.items())):
        if not any(use.node.name in layers or use.node.name in found for use in value.uses()):
            del found[name]
            wanted.discard(str(value.name))
    return set(found)


def _is_side(node: ir.Node, value: ir.Value) -> bool:
    """Shapes, axes and the like."""
    return node.op_type in MOVES and value is not node.inputs[0]
