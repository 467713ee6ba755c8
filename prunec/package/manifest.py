"""`manifest.json`: what a package holds, from what it was made, and by which tools.

No times and no absolute paths: the same inputs give the same bytes. The hashes cover every file whose bytes the
inputs decide; `EVIDENCE` (timings, and the report that shows them) differs from run to run and is not hashed.
"""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import onnx_ir as ir
from pydantic import AfterValidator, BaseModel, ConfigDict

import prunec

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
PLAN = "plan.json"
MODEL = "model.onnx"
MODEL_DATA = "model.onnx.data"
README = "README.txt"
VERIFICATION = "verification.json"
MEASUREMENTS = "measurements.json"
REPORT = "report.html"
EVIDENCE = frozenset({VERIFICATION, MEASUREMENTS, REPORT})

_TOOLS = ("numpy", "onnx", "onnx-ir", "onnxruntime", "scipy")


def _inside(name: str) -> str:
    """A file name that stays inside the package."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or "\\" in name or ".." in parts:
        raise ValueError(f"{name!r} is not a path inside the package")
    return name


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceRecord(_Record):
    """The model that was compiled: its file name (no folder) and the hash of its bytes."""

    name: str
    sha256: str


class TensorRecord(_Record):
    """One input or output. A dimension is a number, a symbol, or None where nothing is known."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None


class FileRecord(_Record):
    """Hash and size of one file of the package."""

    sha256: str
    bytes: int


class Manifest(_Record):
    """The whole of `manifest.json`."""

    schema_version: Literal[1] = 1
    source: SourceRecord
    target: str
    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]
    plan_sha256: str
    files: dict[Annotated[str, AfterValidator(_inside)], FileRecord]
    tools: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict; an unknown dimension stays null."""
        return self.model_dump(mode="json")


def source_record(path: Path, sha256: str) -> SourceRecord:
    """`path` without its folder; bytes that are no text are replaced, as JSON holds text only."""
    return SourceRecord(name=path.name.encode("utf-8", "replace").decode(), sha256=sha256)


def describe_values(values: list[ir.Value] | tuple[ir.Value, ...]) -> tuple[TensorRecord, ...]:
    """Names, dtypes (numpy spelling) and shapes of graph inputs or outputs."""
    return tuple(TensorRecord(name=value.name or "", dtype=_dtype(value), shape=_shape(value)) for value in values)


def tool_versions() -> dict[str, str]:
    """prunec, Python and the libraries that decide the bytes of the model."""
    installed = {name: importlib.metadata.version(name) for name in _TOOLS}
    return {"prunec": prunec.__version__, "python": platform.python_version(), **installed}


def _dtype(value: ir.Value) -> str:
    if value.dtype is None:
        return "unknown"
    return "string" if value.dtype is ir.DataType.STRING else value.dtype.numpy().name


def _shape(value: ir.Value) -> tuple[int | str | None, ...] | None:
    if value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)
