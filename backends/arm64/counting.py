"""Instructions of every step of a model, counted while qemu runs it: no time, but what a model of time starts from."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from prunec.backends.arm64.emulated import qemu
from prunec.backends.arm64.layout import RUNNER
from prunec.backends.cpu.layout import WEIGHTS
from prunec.backends.cross.spec import ModelSpec
from prunec.backends.cross.zig import compile_c
from prunec.diagnostics import PrunecError

_SOURCE = Path(__file__).parent / "runtime" / "count.c"
_TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class Counts:
    """Of one step: all instructions, vector multiply-adds among them, and loads and stores."""

    instructions: int
    multiply_adds: int
    memory: int


def step_counts(folder: Path) -> list[Counts] | None:
    """Of every step of the package in `folder`, on inputs of zeros; None without a qemu that takes plugins.

    Raises:
        PrunecError PC453: no C compiler; PC610: no package.
    """
    steps = ModelSpec.read(folder).steps
    command = qemu()
    if command is None:
        return None  # an ARM machine runs the code without it
    with tempfile.TemporaryDirectory(prefix="prunec-count-") as name:
        work = Path(name)
        shutil.copyfile(_SOURCE, work / _SOURCE.name)
        compile_c(["cc", "-shared", "-fPIC", "-O2", "-g0", _SOURCE.name, "-o", "count.so"], work)
        runner, weights = (os.path.abspath(folder / file) for file in (RUNNER, WEIGHTS))
        plugin = ["-plugin", f"{work / 'count.so'},out={work / 'counts'}"]
        try:
            done = subprocess.run(
                [command, *plugin, runner, weights, "1", "1"], capture_output=True, text=True, check=False,
                timeout=_TIMEOUT_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise PrunecError("PC622", "the runner did not end under qemu", where=str(folder)) from None
        if done.returncode or not (work / "counts").exists():
            return None
        lines = (work / "counts").read_text(encoding="ascii").splitlines()
    readings = [tuple(map(int, line.split())) for line in lines][-2 * len(steps) :]
    # The clock is read before and after every step, and at no other time once the first step runs.
    if len(readings) != 2 * len(steps):
        return None
    pairs = zip(readings[::2], readings[1::2], strict=True)
    return [Counts(*(after - before for before, after in zip(*pair, strict=True))) for pair in pairs]
