"""What numbers depend on beside their inputs: our own code, the libraries that compute, the processor."""

from __future__ import annotations

import hashlib
import importlib.util
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CODE = (
    "prunec.statistics",
    "prunec.passes",
    "prunec.patterns",
    "prunec.graph",
    "prunec.frontend",
    "prunec.backends.onnx",
)
LIBRARIES = ("prunec", "numpy", "scipy", "onnxruntime", "onnx-ir")


@cache
def made_by() -> str:
    """sha256 in hexadecimal, the same until one of them changes."""
    digest = hashlib.sha256()
    for package in CODE:
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.submodule_search_locations is not None
        for folder in map(Path, spec.submodule_search_locations):
            for path in sorted(folder.rglob("*.py")):
                digest.update(f"{package} {path.relative_to(folder)}\0".encode())
                digest.update(path.read_bytes())
    for name in LIBRARIES:
        digest.update(f"{name} {_version(name)}\0".encode())
    digest.update(f"{platform.python_version()} {platform.machine()} {_processor()}".encode())
    return digest.hexdigest()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # a source tree that was not installed
        return "?"


def _processor() -> str:
    """Model and flags: kernels are chosen by them, and add up in different orders."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()
    first = text.split("\n\n", 1)[0].splitlines()
    return "\n".join(line for line in first if line.startswith(("model name", "flags", "Features")))
