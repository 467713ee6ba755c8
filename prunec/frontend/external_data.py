"""External tensor data: where it may lie, whether it is all there, and the hash over everything.

A location is a relative path to a regular file inside the folder of the .onnx file, symbolic links resolved; a
model file is untrusted input and must not make prunec read (or hash) anything else.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx

from prunec.diagnostics import PrunecError

_CHUNK_BYTES = 1 << 20
_INLINE_FIELDS = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")


def tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every dense tensor of the model: initializers and attributes, in subgraphs and functions too."""
    yield from _graph_tensors(proto.graph)
    for function in proto.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _graph_tensors(attribute.g)
            for graph in attribute.graphs:
                yield from _graph_tensors(graph)


def check(proto: onnx.ModelProto, model_path: Path) -> list[Path]:
    """Check every external tensor; return the data files, sorted, each once. PC006–PC008."""
    folder = Path(os.path.abspath(model_path)).parent
    sizes: dict[Path, int] = {}
    for tensor in tensors(proto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        path = _contained(folder, entries.get("location", ""), tensor.name)
        if path not in sizes:
            sizes[path] = _size(path, tensor.name)
        _require_bytes(tensor, entries, sizes[path])
    return sorted(sizes)


def sha256(model_path: Path, data_files: Sequence[Path]) -> str:
    """Hex digest over the model file and its data files (with their relative names and lengths), streamed."""
    digest = hashlib.sha256()
    folder = Path(os.path.abspath(model_path)).parent
    _update(digest, model_path)
    for path in data_files:
        digest.update(f"\0{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        _update(digest, path)
    return digest.hexdigest()


def _update(digest: hashlib._Hash, path: Path) -> None:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)


def _contained(folder: Path, location: str, name: str) -> Path:
    """`folder / location`, refused unless it is a plain relative path that stays inside `folder`."""
    if not location or "\0" in location:
        raise PrunecError("PC008", "external data without a file name", where=name, hint="export the model again")
    path = Path(os.path.normpath(folder / location))
    inside = not os.path.isabs(location) and path.is_relative_to(folder)
    if not inside or not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise PrunecError(
            "PC006",
            f'external data location "{location}" leaves the folder of the model',
            where=name,
            hint="put the data file itself (no link) beside the .onnx file and use its plain name",
        )
    return path


def _size(path: Path, name: str) -> int:
    if not path.is_file():
        raise PrunecError(
            "PC007", f'external data file "{path.name}" is missing', where=name, hint="copy it beside the .onnx file"
        )
    status = path.stat()
    if status.st_nlink > 1:
        raise PrunecError(
            "PC006",
            f'external data file "{path.name}" is a hard link',
            where=name,
            hint="replace it by a copy of its own",
        )
    return status.st_size


def _require_bytes(tensor: onnx.TensorProto, entries: dict[str, str], file_bytes: int) -> None:
    wrong = "export the model again"
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries["length"]) if "length" in entries else None
    except ValueError as error:
        raise PrunecError(
            "PC008", "external data offset or length is not a number", where=tensor.name, hint=wrong
        ) from error
    needed = tensor_bytes(tensor)
    if offset < 0 or (length is not None and length != needed):
        raise PrunecError(
            "PC008",
            f"external data describes {length} bytes at offset {offset}, the shape needs {needed}",
            where=tensor.name,
            hint=wrong,
        )
    if offset + needed > file_bytes:
        raise PrunecError(
            "PC008",
            f'external data file "{entries["location"]}" has {file_bytes} bytes, {offset + needed} are needed',
            where=tensor.name,
            hint="the file is truncated: copy or download it again",
        )


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes the shape and type ask for; sub-byte types are packed. PC018 for an unknown type."""
    if any(dim < 0 for dim in tensor.dims):
        raise PrunecError("PC018", "a negative dimension", where=tensor.name, hint="export the model again")
    bits = _BITS.get(tensor.data_type)
    if bits is None:
        raise PrunecError(
            "PC018", f"element type {tensor.data_type} is unknown", where=tensor.name, hint="export the model again"
        )
    return (math.prod(int(dim) for dim in tensor.dims) * bits + 7) // 8


def _bits() -> dict[int, int]:
    import onnx_ir as ir

    return {
        int(dtype): dtype.bitwidth for dtype in ir.DataType if dtype not in (ir.DataType.UNDEFINED, ir.DataType.STRING)
    }


_BITS = _bits()
