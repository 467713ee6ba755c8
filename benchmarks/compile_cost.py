"""What a compile costs: seconds per stage, the share spent in forward passes, and peak memory.

    python -m benchmarks.compile_cost crepe-full [--flops 0.5] [--samples N]

Forward passes are the calls of ONNX Runtime sessions inside this process; memory is its resident set, sampled every
10 ms, over what it was after the imports, beside the size of the model file. Stages are those of `prunec compile`.
One thread, nothing measured.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from threading import Thread
from typing import Any

import onnxruntime as ort

import prunec.models as zoo
from prunec.api.compilation import compile as compile_model


class Stages:
    """A progress callback that adds up seconds per stage, and a thread that watches its memory."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.peak: dict[str, int] = defaultdict(int)
        self._before = resident()
        self._current, self._since = "start", time.perf_counter()
        Thread(target=self._watch, daemon=True).start()

    def __call__(self, what: str, done: int, of: int) -> None:
        now = time.perf_counter()
        self.seconds[self._current] += now - self._since
        self._current, self._since = what.partition(":")[0], now

    def _watch(self) -> None:
        while True:
            stage = self._current
            self.peak[stage] = max(self.peak[stage], resident() - self._before)
            time.sleep(0.01)


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


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
            cache=False,
            progress=stages,
        )
    total = time.perf_counter() - start
    stages("end", 0, 0)
    size = model.path.stat().st_size
    for name, seconds in stages.seconds.items():
        print(f"{name:32s} {seconds / total:6.1%} {stages.peak[name] / 2**20:6.0f} MiB")
    print(f"{'forward passes in all of these':32s} {forward.seconds / total:6.1%}")
    grown = max(stages.peak.values())
    print(f"{'peak memory over the imports':32s} {grown / 2**20:14.0f} MiB, {grown / size:.1f} x the model")
    return 0


if __name__ == "__main__":
    sys.exit(main())
