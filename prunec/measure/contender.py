"""A contender: one model run by one runner under a name; and the table of runners.

A runner is any class with `load`, `run` and `versions` as in `Runner` below. Adding one is one class and one row.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from prunec.diagnostics import PrunecError

DENSE = "dense_onnxruntime"
PRUNED = "pruned_onnxruntime"
OWN, OWN_DENSE = "prunec", "prunec_dense"
TENSORRT = "tensorrt_dense"
BASELINES = (DENSE, TENSORRT, OWN_DENSE)
"""What a speed-up is over, the first that was measured."""

RUNNERS: dict[str, str] = {
    "onnxruntime": "prunec.measure.runner_onnxruntime:OnnxRuntimeRunner",
    "cpu": "prunec.backends.cpu.runner:CompiledRunner",
    "wasm-node": "prunec.backends.wasm.runners:NodeRunner",
    "wasmtime": "prunec.backends.wasm.runners:WasmtimeRunner",
}


class Runner(Protocol):
    """What a worker needs from a way to run models. It lives and dies in the worker process.

    Libraries are imported with the module, or in `__init__`: `load` is timed.
    """

    def load(self, model: Path, feeds: Mapping[str, np.ndarray], *, threads: int) -> None:
        """Make `model` ready to run on `feeds` with `threads` threads; any exception ends the contender."""

    def run(self) -> object:
        """Run the model once, to completion, and return its outputs."""

    def versions(self) -> dict[str, str]:
        """The software that ran the model, e.g. `{"onnxruntime": "1.31.1"}`."""


@runtime_checkable
class TimesItself(Protocol):
    """A runner whose model runs in another process, which has a better clock for it."""

    def time(self) -> int:
        """Nanoseconds of one run."""

    def peak_rss_bytes(self) -> int:
        """High-water mark of that process, which ends."""


@runtime_checkable
class KnowsProcessorTime(TimesItself, Protocol):
    """One whose other process knows what all its threads used together."""

    def processor_time(self) -> int:
        """Nanoseconds of the processor for one run."""


@dataclass(frozen=True)
class Contender:
    """`name` is the key in measurements.json; `kind` a row of `RUNNERS` or `package.module:Class`.

    `python`: the interpreter of another environment (Python 3.10 or newer with numpy), for what cannot be installed
    beside prunec. It imports what that environment holds, and only then what lies beside prunec's own folder.
    """

    name: str
    model: Path
    kind: str = "onnxruntime"
    python: Path | None = None


def make_runner(kind: str) -> Runner:
    """Import and build the runner class of `kind`.

    Raises PrunecError PC511 for a kind that is neither in the table nor a `module:Class` that can be imported.
    """
    module, _, name = RUNNERS.get(kind, kind).partition(":")
    try:
        runner: Runner = getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError, ValueError) as reason:
        raise PrunecError(
            "PC511",
            f"no way to run models of kind {kind!r}: {reason}",
            hint=f"known kinds: {', '.join(sorted(RUNNERS))}; or name a class as package.module:Class",
        ) from reason
    return runner
