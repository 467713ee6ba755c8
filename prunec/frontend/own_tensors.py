"""Take the weights out of the parsed protobuf message, so that the message can go.

A `TensorProtoTensor` copies its bytes each time it is read, and one of them keeps the whole message in memory. numpy
arrays are held once and shared by every later model. Tensors of types that numpy lacks stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

_NATIVE = frozenset(
    np.dtype(name) for name in "float16 float32 float64 int8 int16 int32 int64 bool".split()
) | frozenset(np.dtype(name) for name in "uint8 uint16 uint32 uint64 complex64 complex128".split())


def own_tensors(model: ir.Model) -> None:
    """Replace every tensor of `model` that lies in a protobuf message; external data stays mapped."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = _owned(value.const_value)
    containers: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for node in _nodes(containers):
        for name, attribute in list(node.attributes.items()):
            if attribute.is_ref():
                continue
            if attribute.type == ir.AttributeType.TENSOR:
                node.attributes[name] = ir.AttrTensor(name, _owned(attribute.value), doc_string=attribute.doc_string)
            elif attribute.type == ir.AttributeType.TENSORS:
                own = [_owned(tensor) for tensor in attribute.value]
                node.attributes[name] = ir.AttrTensors(name, own, doc_string=attribute.doc_string)


def _nodes(containers: list[ir.Graph | ir.Function]) -> Iterator[ir.Node]:
    for container in containers:
        yield from ir.traversal.RecursiveGraphIterator(container)


def _owned(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    if not isinstance(tensor, ir.TensorProtoTensor):
        return tensor
    if tensor.dtype == ir.DataType.STRING:
        texts = tensor.numpy().tolist()
        return ir.StringTensor(texts, shape=tensor.shape, name=tensor.name, doc_string=tensor.doc_string)
    array = tensor.numpy()
    if array.dtype not in _NATIVE:
        return tensor
    return ir.Tensor(array, dtype=tensor.dtype, name=tensor.name, doc_string=tensor.doc_string)
