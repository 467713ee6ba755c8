"""What was said about a target's artifact: refused where it makes no sense, before any work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from prunec.api.opening import PathLike
from prunec.api.target_list import backend_for
from prunec.backends.base import Backend, BuildOptions, DemoOptions
from prunec.diagnostics import PrunecError

WASM, ARM64 = "wasm", "arm64"
_OF_WASM = ("--weights", "--relaxed-simd", "--demo")


def demo_options(wanted: bool, labels: PathLike | None, vocabulary: PathLike | None) -> DemoOptions | None:
    """PC440: files for a page that nobody asked for."""
    given = {"--demo-labels": labels, "--demo-vocabulary": vocabulary}
    name = next((name for name, file in given.items() if file is not None), None)
    if name is not None and not wanted:
        raise PrunecError("PC440", f"{name} is about a demo page", where=name, hint="give --demo too")
    files = (None if file is None else Path(file) for file in given.values())
    return DemoOptions(*files) if wanted else None


def backend_of(target: str, build: BuildOptions, *, dry_run: bool) -> Backend | None:
    """What makes the target's artifact, once it is known to be able to.

    Raises:
        PrunecError PC440: options about an artifact for a target without one; PC016: several shapes for one that
        takes one; PC43x: something is missing here.
    """
    backend = backend_for(target, build.precision)
    given = {"--no-build": not build.builds, "--shape-range": bool(build.ranges),
             "--precision": build.precision is not None, "--products": build.products is not None,
             "--tune": build.tune != "none", "--weights": build.weights is not None,
             "--storage": build.storage != "fp32",
             "--relaxed-simd": build.relaxed_simd, "--demo": build.demo is not None}  # fmt: skip
    option = next((name for name, is_given in given.items() if is_given), None)
    if backend is None and option is not None:
        message = f"{option} is about an artifact that is built for a device, and {target} has none"
        other = {"--tune": "cpu", **dict.fromkeys(_OF_WASM, WASM)}.get(option, "tensorrt-2:4")
        raise PrunecError("PC440", message, where=option, hint=f"leave it out, or use --target {other}")
    for name in _OF_WASM:
        if given[name] and target != WASM:
            hint = f"leave it out, or use --target {WASM}"
            raise PrunecError("PC440", f"{name} is about WebAssembly modules", where=name, hint=hint)
    if given["--storage"] and target not in (WASM, ARM64):
        hint = f"leave it out, or use --target {WASM} or {ARM64}"
        raise PrunecError("PC440", f"{target} keeps weights as they are", where="--storage", hint=hint)
    if len(build.shapes) > 1 and (backend is None or not backend.specialises):
        hint = "one shape, or --target cpu, which makes a program for each"
        raise PrunecError("PC016", f"{target} has no use for several shapes", where="--input-shape", hint=hint)
    if backend is not None:
        backend.check(replace(build, builds=False) if dry_run else build)
    return backend
