"""Bytes → `onnx.ModelProto`, strictly.

Protobuf reads many byte strings that are not ONNX as an empty message, so what an ONNX file cannot lack (IR
version, graph, opsets) is asked for here.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from prunec.diagnostics import PrunecError

_TEXT_SUFFIXES = {".json", ".txt", ".textproto", ".onnxtxt", ".prototxt"}


def read(path: Path) -> onnx.ModelProto:
    """Parse the file; PC001–PC004."""
    data = _read_bytes(path)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except (DecodeError, ValueError, RuntimeError) as error:
        raise PrunecError(
            "PC003",
            f"not an ONNX file, or truncated: {len(data)} bytes that protobuf cannot read",
            where=str(path),
            hint=_guess(path, data),
        ) from error
    _require_model(proto, path, data)
    return proto


def _read_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise PrunecError("PC001", "a directory, not a file", where=str(path), hint="name the .onnx file inside it")
    if not path.exists():
        raise PrunecError("PC001", "no such file", where=str(path), hint="check the path")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PrunecError(
            "PC001", f"cannot be read: {error.strerror}", where=str(path), hint="check its permissions"
        ) from error
    if not data:
        raise PrunecError("PC002", "the file is empty", where=str(path), hint="export or download the model again")
    return data


def _require_model(proto: onnx.ModelProto, path: Path, data: bytes) -> None:
    if proto.ir_version == 0 and not proto.HasField("graph"):
        raise PrunecError("PC003", "not an ONNX file", where=str(path), hint=_guess(path, data))
    again = "export the model again; the file may be truncated"
    if not proto.HasField("graph"):
        raise PrunecError("PC004", "the model has no graph", where=str(path), hint=again)
    if proto.ir_version < 3:
        raise PrunecError(
            "PC004", f"IR version {proto.ir_version} is missing or older than 3", where=str(path), hint=again
        )
    if not proto.opset_import:
        raise PrunecError("PC004", "the model imports no opset", where=str(path), hint=again)


def _guess(path: Path, data: bytes) -> str:
    """What the file may be instead."""
    if data[:2] == b"\x1f\x8b":
        return "it is gzip-compressed: decompress it first"
    if data[:4] == b"PK\x03\x04":
        return "it is a zip archive (a PyTorch checkpoint?): export it with torch.onnx.export first"
    if data.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer: run `git lfs pull`"
    if path.suffix in _TEXT_SUFFIXES or b"\0" not in data[:4096]:
        return "it looks like text; prunec reads binary ONNX files"
    return "export or download the model again"
