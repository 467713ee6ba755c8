"""Other runtimes for ONNX files on CPUs, each in an environment of its own, as contenders of `prunec.measure`.

A runner class runs in that environment, which holds no package of prunec's: it imports nothing but what it installs.
Each runs as its makers say for one request at a time: all threads on that request, float32, static shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from prunec.measure.contender import Contender

Feeds = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Runtime:
    """`runner` is a class of this module, `requirements` what pip installs, `pythons` where that works (empty: all)."""

    name: str
    version: str
    runner: str
    requirements: tuple[str, ...]
    pythons: tuple[str, ...] = ()


RUNTIMES: dict[str, Runtime] = {
    runtime.name: runtime
    for runtime in (
        Runtime("openvino", "2026.4.1", "OpenVino", ("numpy==2.4.6", "openvino==2026.4.1")),
        Runtime(
            "deepsparse",
            "1.8.0",
            "DeepSparse",
            ("numpy==1.26.4", "onnx==1.14.1", "protobuf==7.36.2", "pydantic==2.14.3", "deepsparse==1.8.0"),
            ("3.11", "3.10"),
        ),
    )
}


class OpenVino:
    """OpenVINO on the CPU, for latency. Machines with bfloat16 would compute in it unless told not to."""

    def __init__(self) -> None:
        import openvino

        self._openvino: Any = openvino

    def load(self, model: Path, feeds: Feeds, *, threads: int) -> None:
        core = self._openvino.Core()
        read = core.read_model(str(model))
        read.reshape({name: list(array.shape) for name, array in feeds.items()})
        options = {
            "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
        }  # fmt: skip
        self._request: Any = core.compile_model(read, "CPU", options).create_infer_request()
        self._feeds = dict(feeds)

    def run(self) -> object:
        return self._request.infer(self._feeds, share_inputs=True, share_outputs=True)

    def versions(self) -> dict[str, str]:
        return {"openvino": self._openvino.__version__}


class DeepSparse:
    """Neural Magic's engine, one stream."""

    def __init__(self) -> None:
        import deepsparse

        self._deepsparse: Any = deepsparse

    def load(self, model: Path, feeds: Feeds, *, threads: int) -> None:
        self._engine: Any = self._deepsparse.Engine(model=str(model), batch_size=1, num_cores=threads, num_streams=1)
        self._feeds = [np.ascontiguousarray(feeds[name]) for name in self._engine.input_names]

    def run(self) -> object:
        return self._engine.run(self._feeds, val_inp=False)

    def versions(self) -> dict[str, str]:
        return {"deepsparse": self._deepsparse.__version__}


def installed(model: Path, names: Sequence[str], say: Callable[[str], None]) -> tuple[list[Contender], dict[str, str]]:
    """What runs `model` in each of the runtimes, and why some cannot be installed here."""
    from benchmarks.environments import NoEnvironment, python_of  # the runners' environments have no prunec
    from prunec.measure.contender import Contender

    found, missing = list[Contender](), {}
    for name in names:
        runtime = RUNTIMES[name]
        try:
            python = python_of(name, runtime.requirements, say, versions=runtime.pythons)
        except NoEnvironment as reason:
            missing[name] = str(reason)
            continue
        found.append(Contender(name, model, f"{__name__}:{runtime.runner}", python))
    return found, missing


def able(candidates: Sequence[Contender], feeds: Feeds, threads: int) -> tuple[list[Contender], dict[str, str]]:
    """Those that load and run their model, and why the others do not."""
    from prunec.diagnostics import GateError
    from prunec.measure.run import measure

    found, failing = [], {}
    for one in candidates:
        try:
            measure([one], feeds, threads=threads, blocks=6, warmup_s=0, processes=1, block_ms=0.0)
            found.append(one)
        except GateError as reason:
            failing[one.name] = reason.diagnostic.message
    return found, failing
