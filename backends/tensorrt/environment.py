"""Can TensorRT build here? Each thing that is missing has a code, and a hint that says how to get it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from prunec.backends.tensorrt.scripts.build import OLDEST, NoTensorRT, load_tensorrt
from prunec.backends.tensorrt.scripts.device import SPARSE_FROM, Gpu, NoDevice, find_gpu
from prunec.diagnostics import PrunecError

NO_BUILD = "or pass --no-build: the package is made and checked here, and built where there is a GPU"
LEAST_BYTES = 1 << 30
"""Of free GPU memory to begin with: TensorRT's own libraries take about half of that."""


def check(
    find: Callable[[], Gpu] = find_gpu, load: Callable[[], Any] = load_tensorrt, *, least: int = LEAST_BYTES
) -> None:
    """PrunecError PC430 no TensorRT, PC431 no driver or GPU, PC432 too old, PC433 memory, PC438 no sparse cores."""
    if load is load_tensorrt and importlib.util.find_spec("tensorrt") is None:
        hint = f"pip install 'prunec[tensorrt]', {NO_BUILD}"
        raise PrunecError("PC430", "TensorRT is not installed", where="--target", hint=hint)
    try:
        gpu = find()
    except NoDevice as reason:
        hint = f"run on a machine with an NVIDIA GPU, {NO_BUILD}"
        raise PrunecError("PC431", str(reason), where="--target", hint=hint) from None
    if gpu.capability < SPARSE_FROM:
        have = ".".join(map(str, gpu.capability))
        message = f"{gpu.name} has compute capability {have}: sparse tensor cores begin with 8.0"
        raise PrunecError("PC438", message, where="--target", hint=f"use an Ampere or newer GPU, {NO_BUILD}")
    if gpu.free_bytes < least:
        message = f"{gpu.name} has {gpu.free_bytes / 2**20:.0f} MiB free, building needs at least {least / 2**20:.0f}"
        hint = f"end what else runs on it, {NO_BUILD}"
        raise PrunecError("PC433", message, where="--target", hint=hint)
    try:
        load()
    except NoTensorRT as reason:
        is_old = "too old" in str(reason)
        code, what = (
            ("PC432", f"pip install 'tensorrt>={OLDEST[0]}.{OLDEST[1]}'") if is_old else ("PC430", "install it anew")
        )
        raise PrunecError(code, str(reason), where="--target", hint=f"{what}, {NO_BUILD}") from None
