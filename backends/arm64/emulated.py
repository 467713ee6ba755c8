"""Run a package under qemu: the numbers are those of a device, the speed is not."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from prunec.backends.arm64.layout import RUNNER
from prunec.backends.cpu.layout import WEIGHTS
from prunec.backends.cross.feeds import checked, results
from prunec.backends.cross.spec import ModelSpec
from prunec.diagnostics import PrunecError

_TIMEOUT_S = 900.0


def emulator() -> list[str]:
    """What goes before the runner: nothing on such a machine.

    Raises:
        PrunecError PC455: this is another machine, and qemu is not installed.
    """
    if (platform.system(), platform.machine()) == ("Linux", "aarch64"):
        return []
    found = qemu()
    if found is None:
        message = "nothing here can run arm64 code, so the compiled model cannot be checked"
        raise PrunecError("PC455", message, where="--target arm64", hint="apt install qemu-user, or use --no-build")
    return [found]


def qemu() -> str | None:
    """The command, where it is installed."""
    return shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")


class EmulatedModel:
    """The package in the folder `arm64`; every run is a process of its own.

    Raises:
        PrunecError PC455: no qemu; PC610: no package; PC622: the runner refuses.
    """

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        self.spec = ModelSpec.read(folder)
        self._folder, self._threads, self._emulator = folder, threads, emulator()

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name. PC614, PC621 for inputs that are not the model's; PC622 where it refuses."""
        with tempfile.TemporaryDirectory(prefix="prunec-arm64-") as name:
            files = [Path(name, f"input{number}") for number in range(len(self.spec.inputs))]
            for file, array in zip(files, checked(self.spec, feeds), strict=True):
                file.write_bytes(array.tobytes())
            answers = [Path(name, f"output{number}") for number in range(len(self.spec.outputs))]
            self.start(0, *files, *answers)
            arrays = [np.fromfile(file, t.dtype) for file, t in zip(answers, self.spec.outputs, strict=True)]
        return results(self.spec, arrays)

    def start(self, runs: int, *files: Path) -> str:
        """What the runner prints. PC622 where it refuses or does not end."""
        runner, weights = os.path.abspath(self._folder / RUNNER), os.path.abspath(self._folder / WEIGHTS)
        command = [*self._emulator, runner, weights, str(self._threads), str(runs), *map(str, files)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired) as reason:
            raise PrunecError("PC622", f"the runner did not end: {reason}", where=str(self._folder)) from None
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise PrunecError("PC622", f"the compiled model refused: {last}", where=str(self._folder))
        return done.stdout
