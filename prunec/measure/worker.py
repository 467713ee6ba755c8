"""The worker `python -m prunec.measure.worker`: one process, one contender, driven over pipes.

Requests come one JSON object a line on stdin, answers go one a line to stdout:

    {"op": "load", "kind", "model", "feeds", "names", "threads", "cpus", "parent", "clock"}
                                               -> {"load_ns", "first_run_ns", "versions", "pinned"}
    {"op": "warm", "seconds": s}               -> {"runs", "run_ns"}      run_ns: median
    {"op": "block", "runs": n, "untimed": k}   -> {"ns": [n times]}
    {"op": "end"}                              -> {"peak_rss_bytes"}      and the worker exits

An exception is answered with {"error": "..."} and ends the worker. `feeds` is an .npz of arrays in the order of
`names`. Whatever libraries print goes to stderr, so it cannot break the protocol.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

if TYPE_CHECKING:
    from prunec.measure.contender import TimesItself

Clock = Literal["wall", "cpu"]
CLOCKS: dict[Clock, Callable[[], int]] = {"wall": time.perf_counter_ns, "cpu": time.process_time_ns}
"""cpu: what all threads of the process used together, which other processes disturb far less."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> int:
    """Answer requests until "end", end of file or an exception. Returns the exit code."""
    answers = _claim_stdout()
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = worker.answer(request)
        except Exception as reason:  # noqa: BLE001  (any failure is the answer; the parent decides)
            _send(answers, {"error": f"{type(reason).__name__}: {reason}"})
            return 1
        _send(answers, answer)
        if request["op"] == "end":
            break
    return 0


class Worker:
    """The state between requests: a loaded runner."""

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry out one request; KeyError for an unknown one."""
        operations: dict[str, Callable[..., dict[str, Any]]]
        operations = {"load": self._load, "warm": self._warm, "block": self._block, "end": self._end}
        return operations[request["op"]](**{key: value for key, value in request.items() if key != "op"})

    def _load(
        self,
        *,
        kind: str,
        model: str,
        feeds: str,
        names: list[str],
        threads: int,
        cpus: list[int],
        parent: int,
        clock: Clock,
    ) -> dict[str, Any]:
        _die_with(parent)
        self._now = CLOCKS[clock]
        pinned = _pin(cpus)  # before the imports, so that every thread a library starts inherits it
        import numpy as np

        from prunec.measure.contender import TimesItself, make_runner

        with np.load(feeds) as arrays:
            values = dict(zip(names, (arrays[key] for key in arrays.files), strict=True))
        runner = make_runner(kind)
        self._runner: Any = runner
        self._times_itself = isinstance(runner, TimesItself)
        if isinstance(runner, TimesItself):
            self._own_time = _own_time(runner, clock)
        load_ns, _ = _timed(lambda: self._runner.load(Path(model), values, threads=threads))
        first_run_ns, _ = _timed(self._runner.run)
        gc.collect()
        gc.disable()
        return {
            "load_ns": load_ns,
            "first_run_ns": first_run_ns,
            "versions": self._runner.versions(),
            "pinned": pinned,
        }

    def _warm(self, *, seconds: float) -> dict[str, Any]:
        """Run for at least `seconds` and at least three times."""
        end = time.perf_counter_ns() + int(seconds * 1e9)
        times: list[int] = []
        while len(times) < 3 or time.perf_counter_ns() < end:
            times.append(self._run_ns())
        return {"runs": len(times), "run_ns": sorted(times)[len(times) // 2]}

    def _block(self, *, runs: int, untimed: int) -> dict[str, Any]:
        run = self._runner.run
        for _ in range(untimed):
            run()
        return {"ns": [self._run_ns() for _ in range(runs)]}

    def _run_ns(self) -> int:
        return self._own_time() if self._times_itself else _timed(self._runner.run, self._now)[0]

    def _end(self) -> dict[str, Any]:
        return {"peak_rss_bytes": self._runner.peak_rss_bytes() if self._times_itself else _peak_rss_bytes()}


def _timed(call: Callable[[], object], now: Callable[[], int] = time.perf_counter_ns) -> tuple[int, object]:
    """Nanoseconds of one call, and its result (kept, so that freeing it is not timed)."""
    start = now()
    result = call()
    return now() - start, result


def _own_time(runner: TimesItself, clock: Clock) -> Callable[[], int]:
    from prunec.measure.contender import KnowsProcessorTime

    if clock == "wall":
        return runner.time
    if not isinstance(runner, KnowsProcessorTime):
        raise ValueError("another process does the work: only its wall clock is known")
    return runner.processor_time


def _claim_stdout() -> TextIO:
    """Keep the pipe for answers and point file descriptor 1 at stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _send(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _pin(cpus: list[int]) -> bool:
    if not cpus or not hasattr(os, "sched_setaffinity"):
        return False
    os.sched_setaffinity(0, cpus)
    return True


def _die_with(parent: int) -> None:
    """Ask Linux to kill this process when its parent dies, even while it is stopped between its blocks."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            raise ProcessLookupError("the parent process is gone")


def _peak_rss_bytes() -> int | None:
    """High-water mark of this process's resident memory.

    Not `getrusage`: on Linux its maximum survives exec and so can be the parent's.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return _rusage_peak_bytes()
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), None)
    return int(line.split()[1]) * 1024 if line else None


def _rusage_peak_bytes() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    sys.exit(main())
