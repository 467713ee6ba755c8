"""What is known about the values of a graph before it runs: shapes, small constants, partly known vectors.

One walk in topological order. At each node, in this order:

1. all inputs known and small → its outputs are computed in numpy (arithmetic.py);
2. its output is a vector of dimensions → a partial value (partial.py);
3. a rule of our own for shapes that follow from partial values (shape_rules.py);
4. else onnx's shape inference for this one node, with the known inputs as data.

The walk changes nothing. A stored shape of an intermediate value is believed only where 1–4 say nothing: exporters
leave stale ones behind. The shapes and the equal names of dynamic axes of graph *inputs* are taken at their word.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir

from prunec.passes.canonicalise import arithmetic, contrib_shapes, control_flow, partial, shape_rules
from prunec.passes.canonicalise.partial import Partial
from prunec.passes.canonicalise.symbols import Dim, Symbols
from prunec.passes.canonicalise.tools import STANDARD, attribute_int

Shape = tuple[Dim, ...]
_NOT_INFERRED = (  # an operator that onnx cannot infer alone, or a damaged one: the stored shape has to do
    onnx.shape_inference.InferenceError,
    onnx.checker.ValidationError,
    RuntimeError,
    ValueError,
    IndexError,
)
_DATA_ELEMENTS = 1024  # inputs larger than this are never shape data


@dataclass
class Facts:
    """`shapes`: None for an unknown rank; `known`: small constants; `partials`: vectors with symbols among them."""

    symbols: Symbols
    shapes: dict[ir.Value, Shape | None] = field(default_factory=dict)
    known: dict[ir.Value, np.ndarray] = field(default_factory=dict)
    partials: dict[ir.Value, Partial] = field(default_factory=dict)
    types: dict[ir.Value, onnx.TypeProto] = field(default_factory=dict)

    def shape(self, value: ir.Value | None) -> Shape | None:
        return None if value is None else self.shapes.get(value)

    def array(self, value: ir.Value | None) -> np.ndarray | None:
        """The value when it is a known, small constant."""
        if value is None:
            return None
        if value not in self.known:
            tensor = value.const_value if value.is_initializer() and not value.is_graph_input() else None
            if tensor is None or tensor.size > arithmetic.LIMIT or tensor.dtype == ir.DataType.STRING:
                return None
            self.known[value] = tensor.numpy()
        return self.known[value]

    def partial(self, value: ir.Value | None) -> Partial | None:
        if value is None:
            return None
        if value in self.partials:
            return self.partials[value]
        array = self.array(value)
        return None if array is None else partial.from_array(array)


def gather_facts(model: ir.Model) -> Facts:
    """Walk the model's main graph and, inside it, its subgraphs."""
    taken = {
        dim.value
        for graph in model.graphs()
        for value in [*graph.inputs, *(v for node in graph for v in node.outputs)]
        for dim in value.shape or ()
        if isinstance(dim, ir.SymbolicDim) and dim.value
    }
    walk = _Walk(model, Facts(Symbols(taken)))
    walk.graph(model.graph)
    return walk.facts


class _Walk:
    def __init__(self, model: ir.Model, facts: Facts) -> None:
        self.facts = facts
        self.opsets = [onnx.helper.make_opsetid(*item) for item in sorted(model.opset_imports.items())]
        self.versions = {**model.opset_imports}
        self.version = model.opset_imports.get("", 1)

    def graph(self, graph: ir.Graph) -> None:
        for value in [*graph.inputs, *graph.initializers.values()]:
            self.stored(value)
        for node in graph:
            self.node(node)

    def stored(self, value: ir.Value) -> None:
        """Believe the shape that is written in the model."""
        shape = value.shape
        if value.const_value is not None:
            self.facts.shapes[value] = tuple(value.const_value.shape.numpy())
        else:
            self.facts.shapes[value] = None if shape is None else tuple(self.dim(dim) for dim in shape)

    def dim(self, dim: int | ir.SymbolicDim) -> Dim:
        """A name such as "?" is no name."""
        if isinstance(dim, int):
            return dim
        is_name = dim.value is not None and any(letter.isalnum() for letter in dim.value)
        return dim.value if dim.value is not None and is_name else self.facts.symbols.fresh()

    def node(self, node: ir.Node) -> None:
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                self.graph(attribute.as_graph())
            elif attribute.type == ir.AttributeType.GRAPHS:
                for graph in attribute.as_graphs():
                    self.graph(graph)
        if node.domain not in STANDARD or node.op_type in contrib_shapes.IN_STANDARD:
            return self.contrib(node)
        if self.evaluated(node) or control_flow.infer(node, self.facts):
            return None
        self.partly(node)
        shapes = shape_rules.infer(node, self.facts)
        if shapes is None:
            return self.infer(node)
        for output, shape in zip(node.outputs, shapes, strict=False):
            self.facts.shapes[output] = shape
        self.infer_types(node)
        return None

    def evaluated(self, node: ir.Node) -> bool:
        facts = self.facts
        if node.op_type in ("Shape", "Size"):
            shape = facts.shape(node.inputs[0])
            if shape is None or any(isinstance(dim, str) for dim in shape):
                return False
            dims = np.array(shape, np.int64)
            result = [dims[shape_range(node)] if node.op_type == "Shape" else np.array(dims.prod(), np.int64)]
        else:
            arrays = [facts.array(value) for value in node.inputs]
            missing = (value is not None and array is None for value, array in zip(node.inputs, arrays, strict=True))
            if (not arrays and node.op_type != "Constant") or any(missing):
                return False
            computed = arithmetic.evaluate(node, arrays)
            if computed is None or len(computed) != len(node.outputs):
                return False
            result = computed
        for output, array in zip(node.outputs, result, strict=True):
            facts.known[output] = array
            facts.shapes[output] = array.shape
            self.facts.types[output] = onnx.helper.make_tensor_type_proto(_element_type(array.dtype), None)
        return True

    def partly(self, node: ir.Node) -> None:
        facts = self.facts
        if node.op_type == "Shape":
            shape = facts.shape(node.inputs[0])
            found = None if shape is None else Partial(shape[shape_range(node)])
        elif node.op_type == "Size":
            shape = facts.shape(node.inputs[0])
            found = None if shape is None else Partial((facts.symbols.product(shape),), True)
        elif node.op_type in partial.OPERATORS and len(node.outputs) == 1:
            values = [facts.partial(value) for value in node.inputs]
            found = partial.evaluate(node, values, facts.symbols) if any(v is not None for v in values) else None
        else:
            found = None
        if found is None:
            return
        output = node.outputs[0]
        facts.partials[output] = found
        if found.is_known:
            dtype = self.infer_dtype(node)
            if dtype is not None:
                facts.known[output] = found.array(dtype)

    def contrib(self, node: ir.Node) -> None:
        """An operator of ONNX Runtime's, or one that nobody knows."""
        found = contrib_shapes.infer(node, self.facts)
        if found is None:
            return self.infer(node)
        for output in node.outputs:
            self.stored(output)
        for output, (kind, shape) in zip(node.outputs, found, strict=False):
            if kind is not None:
                self.facts.types[output] = onnx.helper.make_tensor_type_proto(kind, None)
            if shape is not None:
                self.facts.shapes[output] = shape
        return None

    def infer_dtype(self, node: ir.Node) -> np.dtype | None:
        self.infer(node)
        tensor_type = self.facts.types.get(node.outputs[0])
        if tensor_type is None or not tensor_type.HasField("tensor_type"):
            return None
        return ir.DataType(tensor_type.tensor_type.elem_type).numpy()

    def infer_types(self, node: ir.Node) -> None:
        """Types from onnx where the value has none yet; the shapes that are known stay."""
        if all(output.type is not None for output in node.outputs):
            return
        shapes = {output: self.facts.shapes.get(output) for output in node.outputs}
        self.infer(node)
        self.facts.shapes.update(shapes)

    def infer(self, node: ir.Node) -> None:
        """onnx's own inference; what it does not say is believed as stored."""
        types = self.onnx_inference(node)
        for output in node.outputs:
            found = types.get(output.name or "")
            if found is None or not found.WhichOneof("value"):
                self.stored(output)
                continue
            self.facts.types[output] = found
            tensor = found.tensor_type
            if not found.HasField("tensor_type") or not tensor.HasField("shape"):
                self.stored(output)
                continue
            self.facts.shapes[output] = tuple(
                d.dim_value if d.HasField("dim_value") else (d.dim_param or self.facts.symbols.fresh())
                for d in tensor.shape.dim
            )

    def onnx_inference(self, node: ir.Node) -> dict[str, onnx.TypeProto]:
        proto = contrib_shapes.as_standard(node)
        version = self.versions.get(proto.domain, self.version)
        if not onnx.defs.has(proto.op_type, version, proto.domain):
            return {}
        types: dict[str, onnx.TypeProto] = {}
        data: dict[str, onnx.TensorProto] = {}
        for value in node.inputs:
            if value is None:
                continue
            known = self.type_proto(value)
            if known is None:
                return {}
            types[str(value.name)] = known
            array = self.facts.array(value)
            if array is not None and array.size <= _DATA_ELEMENTS and array.dtype.kind in "iufb":
                data[str(value.name)] = onnx.numpy_helper.from_array(array)
        schema = onnx.defs.get_schema(proto.op_type, version, proto.domain)
        try:
            return onnx.shape_inference.infer_node_outputs(schema, proto, types, data, opset_imports=self.opsets)
        except _NOT_INFERRED:
            return {}

    def type_proto(self, value: ir.Value) -> onnx.TypeProto | None:
        """The type with the shape found here, for onnx."""
        proto = onnx.TypeProto()
        inferred = self.facts.types.get(value)
        if inferred is not None:
            proto.CopyFrom(inferred)
        elif value.const_value is not None:
            proto.tensor_type.elem_type = int(value.const_value.dtype)
        elif value.type is not None:
            ir.serde.serialize_type_into(proto, value.type)
        else:
            return None
        if proto.HasField("tensor_type"):
            proto.tensor_type.ClearField("shape")
            shape = self.facts.shape(value)
            if shape is not None:
                proto.tensor_type.shape.SetInParent()
                for dim in shape:
                    entry = proto.tensor_type.shape.dim.add()
                    if isinstance(dim, str):
                        entry.dim_param = dim
                    else:
                        entry.dim_value = dim
        return proto


@functools.cache
def _element_type(dtype: np.dtype) -> int:
    return int(ir.DataType.from_numpy(dtype))


def shape_range(node: ir.Node) -> slice:
    """The `start` and `end` attributes of Shape (opset 15)."""
    end = node.attributes.get("end")
    return slice(attribute_int(node, "start", 0), None if end is None else end.as_int())
