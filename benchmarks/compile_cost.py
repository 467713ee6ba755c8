"""What a compile costs: seconds per stage, the share spent in forward passes, and peak memory.

    python -m benchmarks.compile_cost crepe-full [--flops 0.5] [--samples N]

Forward passes are the calls of ONNX Runtime sessions inside this process; peak memory is the process's own high-water
mark, beside the size of the model file. Stages are those that `prunec compile` reports. One thread, nothing measured.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import onnxruntime as ort

import prunec.models as zoo
from prunec.api.compilation import compile as compile_model


class Stages:
    """A progress callback that adds up seconds per stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._current, self._since = "start", time.perf_counter()

    def __call__(self, what: str, done: int, of: int) -> None:
        now = time.perf_counter()
        self.seconds[self._current] += now - self._since
        self._current, self._since = what.partition(":")[0], now


class Forward:
    """Counts the seconds that sessions spend running."""

    def __init__(self) -> None:
        self.seconds = 0.0
        original = ort.InferenceSession.run

        def timed(session: ort.InferenceSession, *arguments: Any, **keywords: Any) -> Any:
            start = time.perf_counter()
            try:
                return original(session, *arguments, **keywords)
            finally:
                self.seconds += time.perf_counter() - start

        ort.InferenceSession.run = timed


def main() -> int:
    parser = argparse.ArgumentParser(description="Seconds per stage and peak memory of a compile.")
    parser.add_argument("model")
    parser.add_argument("--flops", type=float, default=0.5)
    parser.add_argument("--samples", type=int)
    arguments = parser.parse_args()
    model = zoo.get(arguments.model)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    stages, forward = Stages(), Forward()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        compile_model(
            model.path,
            output=Path(folder) / "out",
            flops=arguments.flops,
            calib=model.calib,
            samples=arguments.samples,
            measure=False,
            progress=stages,
        )
    total = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    stages("end", 0, 0)
    for name, seconds in stages.seconds.items():
        print(f"{name:32s} {seconds / total:6.1%}")
    print(f"{'forward passes in all of these':32s} {forward.seconds / total:6.1%}")
    size = model.path.stat().st_size
    grown = (peak - before) * 1024
    print(f"peak memory over the imports     {grown / 2**20:.0f} MiB, {grown / size:.1f} x the model")
    return 0


if __name__ == "__main__":
    sys.exit(main())
