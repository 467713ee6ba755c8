"""What the runner of a package printed on a device: the command that makes it print, and its table read back."""

from __future__ import annotations

import csv
import shlex
from pathlib import Path

from prunec.backends.arm64.layout import FOLDER, RUNNER
from prunec.backends.cpu.layout import WEIGHTS
from prunec.backends.cross.spec import ModelSpec
from prunec.diagnostics import PrunecError
from prunec.measure.modelled import DeviceStep, DeviceTimes

RUNS = 50


def runner_command(threads: int) -> str:
    """To be run in the package's folder on the device."""
    command = [f"./{RUNNER}", WEIGHTS, str(threads), str(RUNS)]
    return f"cd {FOLDER} && {shlex.join(command)} > times.csv"


def read_times(file: Path, folder: Path) -> DeviceTimes:
    """The table that the runner of the package `folder`/arm64 printed.

    Raises:
        PrunecError PC623: it cannot be read, is no such table, or that of another model.
    """
    steps = ModelSpec.read(folder).steps
    try:
        rows = list(csv.reader(file.read_text(encoding="utf-8").splitlines(), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as reason:
        raise _refusal(file, f"cannot be read: {getattr(reason, 'strerror', None) or reason}") from None
    if not rows or rows[0] != ["number", "nodes", "best_ns"] or any(len(row) != 3 for row in rows):
        raise _refusal(file, "is no table of the runner's")
    named = {row[0]: row for row in rows[1 + len(steps) :]}
    if [row[1] for row in rows[1 : 1 + len(steps)]] != list(steps) or named.keys() != {"run", "device"}:
        raise _refusal(file, "is the table of another model, or cut short")
    try:
        best = [int(row[2]) for row in rows[1 : 1 + len(steps)]]
        run, threads = int(named["run"][2]), int(named["device"][2])
    except ValueError as reason:
        raise _refusal(file, f"holds what is no number: {reason}") from None
    if min((*best, run), default=0) < 0 or threads < 1:
        raise _refusal(file, "holds times below zero")
    return DeviceTimes(
        device=named["device"][1] or "a device that says no name", threads=threads, run_ms=run / 1e6,
        steps=tuple(DeviceStep(nodes=nodes, best_us=ns / 1e3) for nodes, ns in zip(steps, best, strict=True)),
    )  # fmt: skip


def _refusal(file: Path, what: str) -> PrunecError:
    hint = "what ./runner printed on the device; `prunec bench OUT` prints the command"
    return PrunecError("PC623", f"the table of the device {what}", where=str(file), hint=hint)
