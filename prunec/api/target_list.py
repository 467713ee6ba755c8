"""`targets`: what prunec can compile for, and what is missing for the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from prunec.api.record import Result
from prunec.catalog import BACKENDS, INT8_BACKENDS, backends, int8_backends
from prunec.diagnostics import PrunecError

if TYPE_CHECKING:
    from prunec.backends.base import Backend

ONNX = "onnx"
INT8 = "int8"
MIXED, MIXED_TARGETS = "mixed", ("cpu",)
"""Each layer in 8 bits or in float32, where layers are timed in both."""
INT8_PATTERNS = ("block:4x4", "block:8x4", "block:4x8", "block:8x8", "block:16x4", "channel")
"""Whole blocks of 4 outputs × 4 inputs, which is what int8 kernels skip."""


class Target(Result):
    """One target. `status` "available" means that `compile --target` takes it on this machine."""

    name: str
    summary: str
    patterns: tuple[str, ...]
    status: Literal["available"]
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
            (
                "cpu",
                "this machine (x86-64 Linux)",
                ("block:16x1", "block:32x1", "block:8x1", "block:4x1", "block:4x4", "channel"),
            ),
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
        summary="libraries of generated block-sparse kernels for 64-bit ARM Linux, checked under qemu, not timed",
        patterns=("block:4x1", "block:8x1", "block:16x1", "channel"),
        status="available",
        how="to compile: pip install 'prunec[tvm,cross]'; to check: qemu-user, else --no-build; to run: a C compiler",
    ),
)


class Targets(Result):
    """All targets."""

    targets: tuple[Target, ...]


def targets() -> Targets:
    """What `--target` can be, and what each needs."""
    return Targets(targets=TARGETS)


def backend_for(name: str, precision: str | None = None) -> Backend | None:
    """What makes the artifact of a target; None where `model.onnx` is all there is.

    `precision`: some have kernels of their own for int8.
    """
    if name not in BACKENDS:
        return None
    is_int8 = precision in (INT8, MIXED) and name in INT8_BACKENDS
    made: Backend = (int8_backends if is_int8 else backends).load(name)()
    return made


def patterns_of(target: str, precision: str | None = None) -> tuple[str, ...]:
    """What --pattern may be, the first what `auto` means."""
    if precision in (INT8, MIXED) and target in INT8_BACKENDS:
        return INT8_PATTERNS
    return next(one.patterns for one in TARGETS if one.name == target)


def check_target(name: str) -> None:
    """Raise PrunecError PC401 for a target that is unknown."""
    names = [target.name for target in TARGETS]
    if name not in names:
        hint = f"there are {', '.join(names)}; `prunec targets` says more"
        raise PrunecError("PC401", f"there is no target {name!r}", where="--target", hint=hint)
