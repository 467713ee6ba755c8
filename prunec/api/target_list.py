"""`targets`: what prunec can compile for, and what is missing for the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from prunec.api.record import Result
from prunec.catalog import BACKENDS, backends
from prunec.diagnostics import PrunecError

if TYPE_CHECKING:
    from prunec.backends.base import Backend

ONNX = "onnx"


class Target(Result):
    """One target. `status` "available" means that `compile --target` takes it on this machine."""

    name: str
    summary: str
    patterns: tuple[str, ...]
    status: Literal["available", "not in this version"]
    how: str


TARGETS: tuple[Target, ...] = (
    Target(
        name=ONNX,
        summary="a smaller ONNX model for ONNX Runtime, or anything else that runs ONNX",
        patterns=("channel", "N:M", "block:RxC", "vnm:V:N:M", "kernel", "unstructured"),
        status="available",
        how="nothing else is needed",
    ),
    Target(
        name="tensorrt-2:4",
        summary="NVIDIA TensorRT with 2:4 sparse tensor cores",
        patterns=("2:4",),
        status="available",
        how="to build and measure: an NVIDIA GPU (Ampere or newer) and pip install 'prunec[tensorrt]'; else --no-build",
    ),
    Target(
        name="torch-tensorrt-2:4",
        summary="Torch-TensorRT, and plain PyTorch on CUDA, with 2:4 sparse tensor cores",
        patterns=("2:4",),
        status="available",
        how="pip install 'prunec[torch]'; to build, an NVIDIA GPU and 'prunec[torch-tensorrt]'; else --no-build",
    ),
    *(
        Target(
            name=name,
            summary=f"a shared library of generated block-sparse kernels for {machine}",
            patterns=patterns,
            status="available",
            how="to compile: pip install 'prunec[tvm]'; to run: nothing but prunec, or a C compiler",
        )
        for name, machine, patterns in (
            ("cpu", "this machine (x86-64 Linux)", ("block:16x1", "block:32x1", "block:8x1", "block:4x1", "channel")),
            ("x86-avx2", "x86-64 Linux with AVX2", ("block:16x1", "block:8x1", "block:32x1", "block:4x1", "channel")),
            (
                "x86-avx512",
                "x86-64 Linux with AVX-512",
                ("block:16x1", "block:32x1", "block:8x1", "block:4x1", "channel"),
            ),
        )
    ),
    Target(
        name="wasm",
        summary="an npm package of generated block-sparse kernels for WebAssembly with SIMD: browsers and Node",
        patterns=("block:8x1", "block:4x1", "block:16x1", "channel"),
        status="available",
        how="to compile: pip install 'prunec[tvm,cross]'; to time it in V8 too: Node 18 or newer; to run: nothing",
    ),
    Target(
        name="arm64",
        summary="64-bit ARM, with generated kernels",
        patterns=(),
        status="not in this version",
        how="use --target onnx",
    ),
)


class Targets(Result):
    """All targets, the available ones first."""

    targets: tuple[Target, ...]


def targets() -> Targets:
    """What `--target` can be, and what is missing for the targets that cannot be used."""
    return Targets(targets=TARGETS)


def backend_for(name: str) -> Backend | None:
    """What makes the artifact of a target; None where `model.onnx` is all there is."""
    if name not in BACKENDS:
        return None
    made: Backend = backends.load(name)()
    return made


def check_target(name: str) -> None:
    """Raise PrunecError PC401 for a target that is unknown, PC402 for one that this version does not have."""
    known = {target.name: target for target in TARGETS}
    available = [target.name for target in TARGETS if target.status == "available"]
    hint = f"available: {', '.join(available)}; `prunec targets` lists all"
    if name not in known:
        raise PrunecError("PC401", f"there is no target {name!r}", where="--target", hint=hint)
    if name not in available:
        others = ", ".join(n for n in known if n not in available and n != name)
        message = f"{name} is not available in this version; no more are {others}"
        raise PrunecError("PC402", message, where="--target", hint=hint)
