"""Write a package whole or not at all.

    with PackageWriter(out, force=False) as writer:
        writer.write_model(model)
        writer.write_json(PLAN, plan)
        writer.write_manifest(source=..., target="onnx", model=model)   # last of the hashed files
        writer.write_json(MEASUREMENTS, measurements.to_json())         # evidence may follow

Everything goes to a hidden folder beside `out`; leaving the block renames it, leaving it with an exception (Ctrl-C
too) removes it. Every OSError on the way is a PrunecError: PC604 not allowed, PC605 disk full, PC606 anything else.
"""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

import onnx_ir as ir

from prunec.package.destination import check_destination, files_in, move_into_place
from prunec.package.errors import os_errors
from prunec.package.jsonfile import dumps, sha256_of
from prunec.package.manifest import (
    EVIDENCE,
    MANIFEST,
    MODEL,
    PLAN,
    README,
    FileRecord,
    Manifest,
    SourceRecord,
    describe_values,
    tool_versions,
)
from prunec.package.readme import render_readme

# A protobuf message ends at 2 GiB; 64 MiB are left for everything that is no weight.
_INLINE_LIMIT_BYTES = 2**31 - 2**26


class PackageWriter:
    """A context manager; see the module. `folder` is where the files are until the block ends."""

    def __init__(self, out: Path, *, force: bool = False) -> None:
        self.out = out.resolve()
        self.force = force
        self.folder = self.out.with_name(f".{self.out.name}.partial-{secrets.token_hex(4)}")

    def __enter__(self) -> PackageWriter:
        check_destination(self.out, force=self.force)
        with os_errors(self.out):
            self.folder.mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                assert (self.folder / MANIFEST).exists(), "a package without a manifest"
                with os_errors(self.out):
                    move_into_place(self.folder, self.out, force=self.force)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def write_text(self, name: str, text: str) -> None:
        """UTF-8 with LF line ends on every system."""
        with os_errors(self.out):
            self._place(name).write_bytes(text.encode("utf-8"))

    def write_json(self, name: str, document: Any) -> None:
        """`document` in the one spelling of `jsonfile.dumps`."""
        self.write_text(name, dumps(document))

    def add_file(self, name: str, source: Path) -> None:
        """Copy an artifact that a back end built."""
        with os_errors(self.out):
            shutil.copyfile(source, self._place(name))

    def write_model(self, model: ir.Model, *, inline_limit_bytes: int = _INLINE_LIMIT_BYTES) -> Path:
        """Write model.onnx, with its weights in model.onnx.data if they are more than `inline_limit_bytes` together."""
        path = self.folder / MODEL
        with os_errors(self.out):
            save_model(model, path, inline_limit_bytes=inline_limit_bytes)
        return path

    def write_manifest(
        self,
        *,
        source: SourceRecord,
        target: str,
        model: ir.Model,
        target_usage: str | None = None,
        recovery: str | None = None,
    ) -> Manifest:
        """Write README.txt, hash what is there (evidence aside) and write manifest.json.

        `target_usage` is what a back end says about running its own artifact, `recovery` how the model was trained.
        """
        with os_errors(self.out):
            names = sorted(files_in(self.folder) - EVIDENCE)
            files = {name: _file_record(self.folder / name) for name in names}
        manifest = Manifest(
            source=source,
            target=target,
            inputs=describe_values(list(model.graph.inputs)),
            outputs=describe_values(list(model.graph.outputs)),
            plan_sha256=files[PLAN].sha256,
            files=files,
            tools=tool_versions(),
        )
        self.write_text(README, render_readme(manifest, target_usage=target_usage, recovery=recovery))
        readme = {README: _file_record(self.folder / README)}
        manifest = manifest.model_copy(update={"files": {**files, **readme}})
        self.write_json(MANIFEST, manifest.to_json())
        return manifest

    def _place(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def save_model(model: ir.Model, path: Path, *, inline_limit_bytes: int = _INLINE_LIMIT_BYTES) -> None:
    """Save `model`, which stays as it is, so that the file stands on its own or beside its own .data file.

    `onnx_ir.save` alone would keep pointing at the source's external data.
    """
    values = [value for graph in model.graphs() for value in graph.initializers.values()]
    tensors = [value.const_value for value in values]
    if sum(tensor.nbytes for tensor in tensors if tensor is not None) > inline_limit_bytes:
        ir.save(model, path, external_data=f"{path.name}.data")
        return
    try:
        for value, tensor in zip(values, tensors, strict=True):
            if isinstance(tensor, ir.ExternalTensor):
                value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
        ir.save(model, path)
    finally:
        for value, tensor in zip(values, tensors, strict=True):
            value.const_value = tensor


def _file_record(path: Path) -> FileRecord:
    return FileRecord(sha256=sha256_of(path), bytes=path.stat().st_size)
