"""Is it a graph that can be compiled at all: valid ONNX, tensors in, tensors out."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import TopologicalSortPass

from prunec.diagnostics import PrunecError
from prunec.frontend.input_shapes import real_inputs
from prunec.frontend.operators import RUNTIME_STANDARD

_AGAIN = "export the model again; `onnx.checker.check_model` shows the same finding"
_STRIPPED_BYTES = 1024


def check_proto(proto: onnx.ModelProto, path: Path) -> None:
    """What the IR would lose or trip over: no outputs, sparse initializers, broken names. PC005, PC009, PC014."""
    if not proto.graph.output:
        raise PrunecError(
            "PC009", "the graph has no outputs", where=str(path), hint="export the model with named outputs"
        )
    graphs = [proto.graph, *_subgraphs(proto.graph)]
    names: list[str | bytes] = [entry.domain for entry in proto.opset_import]
    for graph in graphs:
        names += _names(graph)
    if any(isinstance(name, bytes) for name in names):  # protobuf gives invalid UTF-8 back as bytes
        raise PrunecError("PC005", "a name in the graph is not UTF-8 text", where=str(path), hint=_AGAIN)
    for graph in graphs:
        for sparse in graph.sparse_initializer:
            raise PrunecError(
                "PC014",
                "a sparse initializer",
                where=sparse.values.name,
                hint="store the weight densely; prunec chooses the sparse format itself",
            )


def _subgraphs(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    found = []
    for node in graph.node:
        for attribute in node.attribute:
            inner = [attribute.g] if attribute.HasField("g") else []
            for subgraph in [*inner, *attribute.graphs]:
                found += [subgraph, *_subgraphs(subgraph)]
    return found


def _names(graph: onnx.GraphProto) -> list[str | bytes]:
    """Everything that has to be text."""
    found: list[str | bytes] = [graph.name]
    for value in [*graph.input, *graph.output, *graph.value_info]:
        found.append(value.name)
        found += [dim.dim_param for dim in value.type.tensor_type.shape.dim]
    for tensor in graph.initializer:
        found.append(tensor.name)
    for node in graph.node:
        found += [node.name, node.op_type, node.domain, *node.input, *node.output]
        found += [attribute.name for attribute in node.attribute]
    return found


def to_ir(proto: onnx.ModelProto, path: Path) -> ir.Model:
    """Deserialise, sort, and bind external data to the model's folder. PC005."""
    try:
        model = ir.from_proto(proto)
        ir.external_data.set_base_dir(model.graph, path.absolute().parent)
        TopologicalSortPass()(model)
    except Exception as error:  # whatever a damaged file provokes in onnx_ir is the file's fault
        raise _invalid(error, path) from error
    return model


def check_valid(proto: onnx.ModelProto, model: ir.Model, path: Path) -> None:
    """Run the ONNX checker on everything but the weights, nodes in the sorted order of `model`. PC005."""
    try:
        onnx.checker.check_model(_without_weights(proto, model))
    except Exception as error:  # likewise for the checker
        raise _invalid(error, path) from error


def _invalid(error: Exception, path: Path) -> PrunecError:
    return PrunecError("PC005", f"not a valid ONNX graph: {_first_line(error)}", where=str(path), hint=_AGAIN)


def _without_weights(proto: onnx.ModelProto, model: ir.Model) -> onnx.ModelProto:
    """A copy for the checker, with every large or external initializer turned into a graph input."""
    copy = onnx.ModelProto()
    for field, value in proto.ListFields():
        if field.name == "graph":
            continue
        if field.name in ("ir_version", "domain", "model_version", "producer_name", "producer_version"):
            setattr(copy, field.name, value)
        elif field.name in ("opset_import", "functions"):
            getattr(copy, field.name).extend(value)
    graph = proto.graph
    copy.graph.name = graph.name or "graph"
    copy.graph.input.extend(graph.input)
    copy.graph.output.extend(graph.output)
    given = {value.name for value in graph.input}
    for tensor in graph.initializer:
        external = tensor.data_location == onnx.TensorProto.EXTERNAL
        if not external and tensor.ByteSize() <= _STRIPPED_BYTES:
            copy.graph.initializer.append(tensor)
        elif tensor.name not in given:
            copy.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    copy.graph.node.extend(_sorted_nodes(graph, model))
    for node in copy.graph.node:
        if node.op_type in RUNTIME_STANDARD and node.domain in ("", "ai.onnx"):
            node.op_type = "PRelu"  # also (x, slope) → x's type and shape: what else the checker looks at is the same
            del node.attribute[:]
    return copy


def _sorted_nodes(graph: onnx.GraphProto, model: ir.Model) -> list[onnx.NodeProto]:
    order = {value.name: index for index, node in enumerate(model.graph) for value in node.outputs if value.name}
    return sorted(graph.node, key=lambda node: min((order.get(name, 0) for name in node.output if name), default=0))


def _first_line(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]


def check_graph(model: ir.Model) -> None:
    """Inputs and outputs are tensors (PC021), outputs are computed (PC009), no input is empty (PC013)."""
    for value in model.graph.outputs:
        if value.producer() is None and not value.is_graph_input() and not value.is_initializer():
            raise PrunecError(
                "PC009", "no node computes this output of the graph", where=value.name or "(unnamed)", hint=_AGAIN
            )
    for value in [*model.graph.inputs, *model.graph.outputs]:
        if value.type is not None and not isinstance(value.type, ir.TensorType):
            raise PrunecError(
                "PC021",
                f"a {type(value.type).__name__}, not a tensor",
                where=value.name,
                hint="prunec takes models whose inputs and outputs are dense tensors",
            )
    for value in real_inputs(model):
        if value.type is None:
            raise PrunecError("PC021", "an input without a type", where=value.name, hint=_AGAIN)
        if value.shape is not None and any(isinstance(dim, int) and dim < 1 for dim in value.shape):
            raise PrunecError(
                "PC013",
                f"the input has shape {value.shape}: a dimension of size zero",
                where=value.name,
                hint="export with a real example input, or a dynamic axis instead of 0",
            )
