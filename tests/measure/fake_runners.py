"""Runners for the tests: they cost a chosen number of milliseconds, or misbehave in one way each."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np


class Sleeper:
    """Takes the milliseconds that the model file says, so that ratios are known; asleep: load matters little."""

    def load(self, model: Path, feeds: Mapping[str, np.ndarray], *, threads: int) -> None:
        self.seconds = float(model.read_text()) / 1e3
        self.threads = threads

    def run(self) -> object:
        time.sleep(self.seconds)
        return None

    def versions(self) -> dict[str, str]:
        return {"fake": "1"}


class Worker(Sleeper):
    """Takes the milliseconds as processor time, by which one thread is timed: load matters not at all."""

    def run(self) -> object:
        end = time.process_time() + self.seconds
        while time.process_time() < end:
            pass
        return None


class Echo(Sleeper):
    """Reports what it was given through its versions."""

    def load(self, model: Path, feeds: Mapping[str, np.ndarray], *, threads: int) -> None:
        self.seconds = 1e-3
        self.seen = {name: f"{array.dtype} {array.shape} {array.sum():g}" for name, array in feeds.items()}
        self.seen["cpus"] = str(sorted(os.sched_getaffinity(0)))
        self.seen["omp"] = os.environ["OMP_NUM_THREADS"]

    def versions(self) -> dict[str, str]:
        return self.seen


class Elsewhere(Sleeper):
    """Reports the interpreter, and whether it sees the packages beside prunec."""

    def versions(self) -> dict[str, str]:
        return {"prefix": sys.prefix, "numpy": np.__file__, "pydantic": str(importlib.util.find_spec("pydantic"))}


class Loud(Sleeper):
    """Prints to stdout, which must not disturb the protocol."""

    def run(self) -> object:
        print("not an answer", flush=True)
        return super().run()


class Refuses(Sleeper):
    def load(self, model: Path, feeds: Mapping[str, np.ndarray], *, threads: int) -> None:
        raise ValueError("no such operator: Frobnicate")


class OutOfMemory(Sleeper):
    def run(self) -> object:
        os.kill(os.getpid(), signal.SIGKILL)
        return None


class Crashes(Sleeper):
    def run(self) -> object:
        print("assertion failed in kernel.c", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGABRT)
        return None


class Exits(Sleeper):
    def run(self) -> object:
        os._exit(7)


class Hangs(Sleeper):
    def run(self) -> object:
        time.sleep(1000)
        return None


class CrashesLate(Sleeper):
    """Survives load and warm-up and dies in the middle of the blocks."""

    runs = 0

    def run(self) -> object:
        self.runs += 1
        if self.runs > 14:  # load and warm-up have at most 11, the blocks bring at least 12
            os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(2e-3)
        return None
