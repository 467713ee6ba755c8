"""What the kernel tests share: instruction sets of this machine, sparse matrices, errors, a convolution in float64."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from prunec.backends.cpu.isa import ARM64, AVX2, ISAS, WASM, Isa, cpu_flags
from prunec.backends.cpu.kernels.base import Kernel

needs_x86 = pytest.mark.skipif(not cpu_flags().issuperset(AVX2.flags), reason="this CPU has no AVX2")
SIZES = (1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 49)


def isas() -> list[Any]:
    """All instruction sets as parameters; skipped, with the reason, where this machine lacks one.

    Other machines than this one are slow: every kernel is linked into a program of its own.
    """
    have = cpu_flags()
    found = []
    for isa in ISAS.values():
        missing = sorted(set(isa.flags) - have)
        marks = [pytest.mark.skip(reason=f"this CPU lacks {', '.join(missing)}")] if missing else []
        found.append(pytest.param(isa, id=isa.name, marks=marks))
    return [*found, *elsewhere(WASM, ARM64)]


def elsewhere(*others: Isa) -> list[Any]:
    """Instruction sets of other machines as parameters, skipped where nothing here runs their code."""
    engine = pytest.mark.skipif(importlib.util.find_spec("wasmtime") is None, reason="needs the [cross] extra")
    emulated = pytest.mark.skipif(shutil.which("qemu-aarch64") is None, reason="needs qemu-user")
    marks = {True: emulated, False: engine}
    return [pytest.param(isa, id=isa.name, marks=[pytest.mark.slow, marks[is_arm64(isa)]]) for isa in others]


def is_arm64(isa: Isa) -> bool:
    return isa.triple.startswith("aarch64")


def runs(kernel: Kernel, isa: Isa) -> Callable[..., np.ndarray]:
    """The kernel as a function of its arrays, which returns what the written one holds afterwards."""
    if isa.triple.startswith("x86"):
        from prunec.backends.cpu.kernels.compiler import Callable as Native

        return Native(kernel, isa)
    from tests.backends.cross_support import run_arm64, run_wasm

    return partial(run_arm64 if is_arm64(isa) else run_wasm, kernel, isa)


def worst(found: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference relative to the largest wanted magnitude; NaN counts as infinite."""
    difference = np.abs(found.astype(np.float64) - wanted)
    return float("inf") if np.isnan(difference).any() else float(difference.max() / np.abs(wanted).max())


def sparse(rng: np.random.Generator, outputs: int, columns: int, rows: int, density: float) -> np.ndarray:
    """float32 [outputs, columns] with zero blocks of `rows` × 1."""
    mask = rng.random((-(-outputs // rows), columns)) < density
    return (rng.standard_normal((outputs, columns)) * np.repeat(mask, rows, axis=0)[:outputs]).astype(np.float32)


def convolution(x: np.ndarray, weight: np.ndarray, groups: int, stride: int, dilation: int, pad: int) -> np.ndarray:
    """In float64, tap by tap."""
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    m, own, k, _ = weight.shape
    out = (x.shape[2] - dilation * (k - 1) - 1) // stride + 1
    result = np.zeros((x.shape[0], m, out, out))
    for j in range(m):
        first = j // (m // groups) * own
        for dy in range(k):
            for dx in range(k):
                part = x[:, first : first + own, dy * dilation :, dx * dilation :][:, :, ::stride, ::stride]
                taps = weight[j, :, dy, dx].astype(np.float64)
                result[:, j] += np.einsum("nchw,c->nhw", part[:, :, :out, :out], taps)
    return result


def empty(size: int) -> np.ndarray:
    """NaN: what a kernel forgets to write shows."""
    return np.full(size, np.nan, np.float32)
