"""The parent's end of the pipe against processes that do not speak the protocol."""

from __future__ import annotations

import sys

import pytest

from prunec.diagnostics import GateError
from prunec.measure.client import WorkerProcess


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("input(); print('hello')", "PC515"),
        ("input(); print('[1, 2]')", "PC515"),
        ("input(); print('{\"ns\": 1}')", "PC515"),
        ("input(); print('\\x00' * 1000)", "PC515"),
        ("pass", "PC513"),
        ("raise SystemExit('gone')", "PC513"),
    ],
)
def test_a_babbling_or_absent_worker(program: str, code: str) -> None:
    command = [sys.executable, "-c", program]
    with WorkerProcess("odd", threads=1, command=command) as worker, pytest.raises(GateError) as raised:
        worker.ask({"op": "warm", "seconds": 0}, timeout_s=20)
    assert raised.value.diagnostic.code == code


def test_a_worker_is_killed_even_while_it_is_stopped() -> None:
    with WorkerProcess("stopped", threads=1) as worker:
        worker.pause()
        with pytest.raises(GateError, match=r"within 0\.2 s"):
            worker.ask({"op": "end"}, timeout_s=0.2)
        worker.kill()
