"""Take the weights out of the parsed protobuf message, so that the message can go.

A `TensorProtoTensor` copies its bytes each time it is read, and one of them keeps the whole message in memory. Large
ones are read from the model's file from then on, others become numpy arrays, held once and shared by every later model.
Tensors of types that numpy lacks stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir

from prunec.graph.mapped import LAZY_BYTES, is_plain
from prunec.graph.stored import StoredTensors

_NATIVE = frozenset(
    np.dtype(name) for name in "float16 float32 float64 int8 int16 int32 int64 bool".split()
) | frozenset(np.dtype(name) for name in "uint8 uint16 uint32 uint64 complex64 complex128".split())


SEARCH_BYTES = 1 << 16
"""How far behind the last large tensor the next one is looked for first."""


def own_tensors(model: ir.Model, path: Path) -> None:
    """Replace every tensor of `model` that lies in the protobuf message at `path`; external data stays mapped."""
    in_file = _InFile(path)
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = in_file.found(value.const_value) or _owned(value.const_value)
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


class _InFile:
    """Finds tensors in the file that they were parsed from: one behind the other, most of the time."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._stored = StoredTensors(self._file)
        self._behind = 0

    def found(self, tensor: ir.TensorProtocol) -> ir.LazyTensor | None:
        """The same tensor, read from the file; None for small ones and those that are not stored as plain bytes."""
        if not isinstance(tensor, ir.TensorProtoTensor) or tensor.nbytes < LAZY_BYTES or not is_plain(tensor.dtype):
            return None
        raw = tensor.raw.raw_data
        if len(raw) != tensor.nbytes:
            return None
        offset = self._find(raw, self._behind, len(raw) + SEARCH_BYTES)
        offset = self._find(raw, 0, -1) if offset < 0 else offset
        if offset < 0:
            return None
        self._behind = offset + len(raw)
        return self._stored.at(offset, tensor.dtype, [int(d) for d in tensor.shape.numpy()], tensor.name)

    def _find(self, raw: bytes, start: int, length: int) -> int:
        self._file.seek(start)
        place = self._file.read(length).find(raw)
        return start + place if place >= 0 else -1


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
