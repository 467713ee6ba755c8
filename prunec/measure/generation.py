"""One generation of workers: a fresh process for every contender, warmed up, run in blocks, and ended.

One worker works while the others are stopped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from prunec.measure.client import WorkerProcess
from prunec.measure.contender import Contender
from prunec.measure.schedule import Schedule
from prunec.measure.worker import Clock

Progress = Callable[[str, int, int], None]  # stage, done, of
Blocks = list[list[int]]  # nanoseconds per block and run


@dataclass(frozen=True)
class Setting:
    """What all workers have in common."""

    feeds_file: Path
    feed_names: tuple[str, ...]
    threads: int
    cpus: tuple[int, ...]
    warmup_s: float
    timeout_s: float
    clock: Clock = "wall"


class Generation:
    """A context manager: workers start when it is entered and are gone when it is left, whatever happened."""

    def __init__(self, contenders: Sequence[Contender], setting: Setting) -> None:
        self._contenders = contenders
        self._setting = setting
        self._stack = ExitStack()
        self._workers: dict[str, WorkerProcess] = {}
        self.loaded: dict[str, Mapping[str, Any]] = {}
        self.run_ns: dict[str, float] = {}

    def __enter__(self) -> Generation:
        with ExitStack() as stack:
            for contender in self._contenders:
                self._start(contender, stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def run(self, schedule: Schedule, progress: Callable[[int], None]) -> dict[str, Blocks]:
        """All blocks of this generation, A B B A. `progress` hears how many rounds are done."""
        names = [contender.name for contender in self._contenders]
        times: dict[str, Blocks] = {name: [] for name in names}
        for index in range(schedule.blocks):
            progress(index)
            for name in names if index % 2 == 0 else names[::-1]:
                times[name].append(self._block(name, schedule.runs[name], schedule.untimed[name]))
        return times

    def end(self) -> dict[str, int | None]:
        """End the workers in peace; their peak resident bytes."""
        return {name: self._end(worker) for name, worker in self._workers.items()}

    def _start(self, contender: Contender, stack: ExitStack) -> None:
        setting, name = self._setting, contender.name
        process = WorkerProcess(name, threads=setting.threads, python=contender.python)
        worker = self._workers[name] = stack.enter_context(process)
        request = {
            "op": "load",
            "kind": contender.kind,
            "model": os.fspath(contender.model.resolve()),
            "feeds": os.fspath(setting.feeds_file),
            "names": setting.feed_names,
            "threads": setting.threads,
            "cpus": setting.cpus,
            "parent": os.getpid(),
            "clock": setting.clock,
        }
        self.loaded[name] = worker.ask(request, timeout_s=setting.timeout_s)
        warmup = {"op": "warm", "seconds": setting.warmup_s}
        warm = worker.ask(warmup, timeout_s=setting.warmup_s + setting.timeout_s)
        self.run_ns[name] = max(1.0, float(warm["run_ns"]))
        worker.pause()

    def _block(self, name: str, runs: int, untimed: int) -> list[int]:
        worker = self._workers[name]
        expected_s = (runs + untimed) * self.run_ns[name] / 1e9
        worker.resume()
        request = {"op": "block", "runs": runs, "untimed": untimed}
        answer = worker.ask(request, timeout_s=self._setting.timeout_s + expected_s)
        worker.pause()
        times: list[int] = answer["ns"]
        return times

    def _end(self, worker: WorkerProcess) -> int | None:
        worker.resume()
        peak: int | None = worker.ask({"op": "end"}, timeout_s=self._setting.timeout_s)["peak_rss_bytes"]
        return peak
