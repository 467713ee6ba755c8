"""Open a package: check its schema and every hash, then run it.

Raises PrunecError PC610 no package or no readable manifest, PC611 a file is missing or truncated, PC612 a file was
changed, PC613 a newer prunec wrote it, PC614 the feeds do not fit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import ValidationError

from prunec.diagnostics import Diagnostic, PrunecError
from prunec.measure.modelled import Elsewhere
from prunec.measure.results import Measurements, prefers_onnxruntime
from prunec.package.jsonfile import sha256_of
from prunec.package.manifest import MANIFEST, MEASUREMENTS, MODEL, PLAN, SCHEMA_VERSION, VERIFICATION, Manifest
from prunec.verify.records import VerificationRecord

if TYPE_CHECKING:
    from prunec.backends.arm64.emulated import EmulatedModel
    from prunec.backends.cpu.compiled import CompiledModel
    from prunec.backends.wasm.engine import WasmModel

_AGAIN = "compile the model again"
COMPILED, MODULE, LIBRARIES = "cpu", "wasm", "arm64"
Runtime = Literal["prunec", "onnxruntime"]


@dataclass(frozen=True)
class Package:
    """A package whose files were found to be those of its manifest. Evidence that was not written is None.

    `elsewhere`: what is known of a machine that is not here, where nothing was measured here.
    """

    path: Path
    manifest: Manifest
    plan: Mapping[str, Any]
    verification: VerificationRecord | None
    measurements: Measurements | None
    elsewhere: Elsewhere | None = None
    threads: int = 1
    runtime: Runtime | None = None

    @property
    def model_path(self) -> Path:
        """The pruned ONNX model."""
        return self.path / MODEL

    @property
    def compiled_path(self) -> Path | None:
        """The folder of the compiled model, where the target made one."""
        folder = self.path / COMPILED
        return folder if folder.is_dir() else None

    @property
    def module_path(self) -> Path | None:
        """The folder of the WebAssembly module, where the target made one. Python runs it to check it only."""
        folder = self.path / MODULE
        return folder if folder.is_dir() else None

    @property
    def libraries_path(self) -> Path | None:
        """The folder with the libraries for 64-bit ARM, where the target made them. Python runs them to check them."""
        folder = self.path / LIBRARIES
        return folder if folder.is_dir() else None

    @property
    def default_runtime(self) -> Runtime:
        """The compiled model where there is one, unless it was measured to be slower than ONNX Runtime.

        For the first of the shapes that it was compiled for; `run` decides for each.
        """
        return self._preferred()

    def _preferred(self, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Runtime:
        """For inputs with these shapes; without them the first that it was compiled for."""
        is_compiled = self.compiled_path is not None and not prefers_onnxruntime(self.measurements, shapes)
        return "prunec" if is_compiled else "onnxruntime"

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name. PC614 if the names of the feeds are not the inputs'; what the compiled model refuses."""
        shapes = {name: np.shape(array) for name, array in feeds.items()}
        if (self.runtime or self._preferred(shapes)) == "prunec":
            return self._compiled.run(feeds)
        wanted = {record.name for record in self.manifest.inputs}
        if feeds.keys() != wanted:
            raise PrunecError(
                "PC614",
                f"the model takes {', '.join(sorted(wanted)) or 'no inputs'}, not {', '.join(sorted(feeds)) or 'none'}",
                where=str(self.path),
            )
        names = [record.name for record in self.manifest.outputs]
        return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))

    @cached_property
    def _compiled(self) -> CompiledModel | WasmModel | EmulatedModel:
        from prunec.backends.cpu.compiled import CompiledModel

        if self.module_path is not None:
            from prunec.backends.wasm.engine import WasmModel

            return WasmModel(self.module_path)
        if self.libraries_path is not None:
            from prunec.backends.arm64.emulated import EmulatedModel

            return EmulatedModel(self.libraries_path, threads=self.threads)
        if self.compiled_path is None:
            message = f"the package holds no compiled model: its target is {self.manifest.target}"
            raise PrunecError("PC619", message, where=str(self.path), hint="compile with --target cpu")
        return CompiledModel(self.compiled_path, threads=self.threads)

    @cached_property
    def _session(self) -> Any:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3
        return ort.InferenceSession(str(self.model_path), options, providers=["CPUExecutionProvider"])


def load_package(path: Path, *, threads: int = 1, runtime: Runtime | None = None) -> Package:
    """Open the package at `path`; see the module for what is raised. `runtime` None: the faster one for each input."""
    manifest = _manifest(path)
    problems = check_files(path, manifest)
    if problems:
        first = problems[0]
        raise PrunecError(first.code, first.message, where=first.where, hint=first.hint)
    verification = _evidence(path / VERIFICATION)
    measured = _evidence(path / MEASUREMENTS)
    try:
        is_elsewhere = measured is not None and "machine" not in measured
        return Package(
            path=path,
            manifest=manifest,
            plan=_json(path / PLAN),
            verification=None if verification is None else VerificationRecord.from_json(verification),
            measurements=None if measured is None or is_elsewhere else Measurements.from_json(measured),
            elsewhere=Elsewhere.model_validate(dict(measured)) if measured is not None and is_elsewhere else None,
            threads=threads,
            runtime=runtime,
        )
    except ValidationError as reason:
        raise PrunecError("PC610", f"not as prunec wrote it: {_first(reason)}", where=str(path), hint=_AGAIN) from None


def check_files(path: Path, manifest: Manifest) -> list[Diagnostic]:
    """Every file that is missing, has another size, or has other bytes than the manifest says."""
    problems = []
    for name, record in sorted(manifest.files.items()):
        file = path / name
        where = str(file)
        if not file.is_file():
            problems.append(Diagnostic("PC611", "a file of the package is missing", where, _AGAIN))
        elif (size := file.stat().st_size) < record.bytes:
            message = f"a file of the package is truncated: {size} of {record.bytes} bytes"
            problems.append(Diagnostic("PC611", message, where, _AGAIN))
        elif size != record.bytes or sha256_of(file) != record.sha256:
            hint = "compile again; a changed plan.json goes through `prunec compile --plan`"
            problems.append(Diagnostic("PC612", "a file of the package was changed after it was written", where, hint))
    return problems


def _manifest(path: Path) -> Manifest:
    if not (path / MANIFEST).is_file():
        raise PrunecError("PC610", f"no prunec package: there is no {MANIFEST}", where=str(path))
    document = _json(path / MANIFEST)
    version = document.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise PrunecError(
            "PC613",
            f"a newer prunec wrote this package (schema {version}, this one knows {SCHEMA_VERSION})",
            where=str(path),
            hint="upgrade prunec",
        )
    try:
        return Manifest.model_validate(document)
    except ValidationError as reason:
        message = f"the manifest is not as prunec wrote it: {_first(reason)}"
        raise PrunecError("PC610", message, where=str(path / MANIFEST), hint=_AGAIN) from None


def _evidence(path: Path) -> dict[str, Any] | None:
    return _json(path) if path.is_file() else None


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as reason:
        raise PrunecError("PC610", f"cannot be read as JSON: {reason}", where=str(path), hint=_AGAIN) from None
    if not isinstance(document, dict):
        raise PrunecError("PC610", "is not a JSON object", where=str(path), hint=_AGAIN)
    return document


def _first(reason: ValidationError) -> str:
    """The first complaint in one line."""
    error = reason.errors()[0]
    return f"{'.'.join(map(str, error['loc']))}: {error['msg']}"
