"""The parent's end of a worker process: ask with a deadline, stop it between blocks, and never leave it behind."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import prunec
from prunec.diagnostics import GateError

_COMMAND = (sys.executable, "-m", "prunec.measure.worker")
_ROOT = str(Path(prunec.__file__).parents[1])
_ELSEWHERE = (
    "import runpy, sys; sys.path.append({root!r}); runpy.run_module('prunec.measure.worker', run_name='__main__')"
)
_LONGEST_LINE = 64 * 2**20
_NOTHING = "nothing was measured"
_ANSWERS = {  # what an answer to each request holds
    "load": {"load_ns", "first_run_ns", "versions", "pinned"},
    "warm": {"runs", "run_ns"},
    "block": {"ns"},
    "end": {"peak_rss_bytes"},
}


class WorkerProcess:
    """A context manager around one worker.

    Every failure of the worker is a GateError that names the contender: PC512 it answered with an exception, PC513 it
    died, PC514 it did not answer in time, PC515 its answer is garbage.
    """

    def __init__(
        self, name: str, *, threads: int, python: Path | None = None, command: Sequence[str] = _COMMAND
    ) -> None:
        self.name = name
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed in __exit__)
        self._process = subprocess.Popen(
            command if python is None else (python, "-c", _ELSEWHERE.format(root=_ROOT)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=_environment(threads, is_own=python is None),
            start_new_session=True,  # the terminal's Ctrl-C goes to the parent, which kills the workers
        )
        self._lines: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._stderr.close()

    def ask(self, request: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """Send one request and wait for its answer."""
        self._send(request)
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            self.kill()
            raise self._error("PC514", f"did not answer {request['op']!r} within {timeout_s:g} s") from None
        if not line:
            raise self._error("PC513", self._death())
        return self._answer(line, expected=_ANSWERS[request["op"]])

    def pause(self) -> None:
        """Take it off the CPU: its threads may spin for milliseconds after a run and would disturb the others."""
        self._signal("SIGSTOP")

    def resume(self) -> None:
        """Undo `pause`."""
        self._signal("SIGCONT")

    def kill(self) -> None:
        """End it now, whatever it is doing. Idempotent."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        with suppress(OSError):  # a request may still be in the buffer; nobody will read it
            self._process.stdin.close()

    def _signal(self, name: str) -> None:
        if sys.platform == "linux":
            self._process.send_signal(getattr(signal, name))

    def _read(self) -> None:
        """Move lines from the pipe to the queue; an empty one says that the worker closed it."""
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            while line := stream.readline(_LONGEST_LINE):
                self._lines.put(line)
        self._lines.put(b"")

    def _send(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as reason:  # broken pipe
            raise self._error("PC513", self._death()) from reason

    def _answer(self, line: bytes, *, expected: set[str]) -> dict[str, Any]:
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if isinstance(answer, dict) and "error" in answer:
            self.kill()
            raise self._error("PC512", f"failed: {answer['error']}")
        if not isinstance(answer, dict) or answer.keys() != expected:
            self.kill()
            raise self._error("PC515", f"sent something that is no answer: {line[:80]!r}")
        return answer

    def _death(self) -> str:
        """How the process ended, in words."""
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.kill()
            return "closed its pipe and was killed"
        if code >= 0:
            return f"ended with exit code {code}{self._last_words()}"
        name = signal.Signals(-code).name
        if name == "SIGKILL":
            return "was killed (SIGKILL), probably because memory ran out"
        return f"crashed ({name}){self._last_words()}"

    def _last_words(self) -> str:
        """The last non-empty line of its stderr."""
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - 4096))
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1].strip()}" if lines else ""

    def _error(self, code: str, message: str) -> GateError:
        hint = "raise the time limit or shrink the batch" if code == "PC514" else "see that the model runs on its own"
        return GateError(code, f"{_NOTHING}: the contender {message}", where=self.name, hint=hint)


def _environment(threads: int, *, is_own: bool) -> dict[str, str]:
    """The parent's environment and module path, without the current directory, and with its thread count.

    Another interpreter has a module path of its own.
    """
    path = os.pathsep.join(entry or os.getcwd() for entry in dict.fromkeys(sys.path)) if is_own else ""
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    return {**os.environ, **limits, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
