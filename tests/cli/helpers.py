"""Run the command line and look at its exit code, stdout and stderr.

`prunec` runs it inside the test process, on file descriptors of its own, because a fresh interpreter takes seconds to
import everything; `process` starts a real one. Each command has at least one test with each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from tests.graph.builder import Builder

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
COMMAND = (sys.executable, "-m", "prunec")


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout, which has to be one JSON document and nothing else."""
        return json.loads(self.out)


def process(*arguments: object, cwd: Path) -> Done:
    """`prunec ARGUMENTS` in the folder `cwd`, as a process of its own."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr)


def prunec(*arguments: object, cwd: Path) -> Done:
    """`prunec ARGUMENTS` in the folder `cwd`, in this process."""
    from prunec.cli.run import run

    before, modules = os.getcwd(), set(sys.modules)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        os.chdir(cwd)
        try:
            with _descriptor(1, out.fileno()), _descriptor(2, err.fileno()):
                code = run([str(argument) for argument in arguments])
        finally:
            os.chdir(before)
            for name in set(sys.modules) - modules:  # a user's module of the same name may follow in another folder
                if str(getattr(sys.modules[name], "__file__", "")).startswith(str(cwd)):
                    del sys.modules[name]
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read())
    return Done(code, *texts)


@contextmanager
def _descriptor(number: int, target: int) -> Iterator[None]:
    """File descriptor `number` and Python's stream on it write to `target`."""
    name = {1: "stdout", 2: "stderr"}[number]
    saved, stream = os.dup(number), getattr(sys, name)
    os.dup2(target, number)
    setattr(sys, name, open(number, "w", buffering=1, encoding="utf-8", closefd=False))  # noqa: SIM115
    try:
        yield
    finally:
        getattr(sys, name).flush()
        setattr(sys, name, stream)
        os.dup2(saved, number)
        os.close(saved)


def refuses(done: Done, code: str, *, exit_code: int = 2) -> None:
    """The house form of an error: one `error[…]` with a `help:`, no traceback, the right exit code."""
    assert done.code == exit_code, done.err
    assert f"error[{code}]: " in done.err
    assert "Traceback" not in done.err
    assert done.err.count("error[") == 1


def small_model(path: Path, seed: int = 0) -> Path:
    """Three convolutions with a shortcut and a classifier: two groups that can be cut."""
    b = Builder(seed)
    x = b.input("x", [1, 3, 12, 12])
    stem = b.relu(b.batch_norm(b.conv(x, 16)))
    body = b.op("Add", [stem, b.relu(b.conv(stem, 16))])
    head = b.op("Flatten", [b.op("GlobalAveragePool", [b.relu(b.conv(body, 32, stride=2))])])
    b.output(b.gemm(head, 10))
    ir.save(b.model(), path)
    return path


def files(folder: Path) -> dict[str, bytes]:
    """Everything below a folder, hidden files too; not what Python compiles."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}
