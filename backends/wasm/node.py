"""Run a package in Node, which has the engine of Chromium (V8), through its own ES module."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache as once
from pathlib import Path
from typing import Any

import numpy as np

from prunec.backends.cross.feeds import checked, results
from prunec.backends.wasm.spec import WasmSpec
from prunec.diagnostics import PrunecError
from prunec.measure.worker import Clock

_HOST = Path(__file__).parent / "module" / "host.mjs"
_RELAXED = ["--experimental-wasm-relaxed-simd", "--no-liftoff"]
"""Where relaxed SIMD is still an experiment (Node 20), the first of its two compilers gets products of bytes wrong."""


def node() -> str | None:
    """The command, where it is installed."""
    return shutil.which("node")


@once
def node_version(command: str) -> str:
    """Of Node and of its V8; empty where it does not say."""
    script = "process.stdout.write(`Node ${process.versions.node}, V8 ${process.versions.v8}`)"
    done = subprocess.run([command, "-e", script], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


class NodeModel:
    """One instance of the package in the folder `wasm`, in a process of its own. A context manager.

    Raises:
        PrunecError PC622: no Node, or it refuses (with the code of the ES module's error).
    """

    def __init__(self, folder: Path) -> None:
        command = node()
        if command is None:
            raise PrunecError("PC622", "there is no Node here", where=str(folder), hint="install Node 18 or newer")
        self.spec = WasmSpec.read(folder)
        self._folder = folder
        flags = _RELAXED if self.spec.simd == "relaxed" else []
        self._process = subprocess.Popen(
            [command, *flags, str(_HOST)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.versions: dict[str, str] = {}
        self._fed: Mapping[str, np.ndarray] | None = None

    def __enter__(self) -> NodeModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request. PC622 for an error, or where the process died."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the process ended"}
        if "error" in answer:
            raise PrunecError("PC622", f"the compiled model refused: {answer['error']}", where=str(self._folder))
        return answer

    def feed(self, feeds: Mapping[str, np.ndarray]) -> None:
        """Load the model, and the inputs beside it."""
        inputs = []
        with tempfile.TemporaryDirectory(prefix="prunec-node-") as name:  # whoever kills this process leaves no file
            for number, (tensor, array) in enumerate(zip(self.spec.inputs, checked(self.spec, feeds), strict=True)):
                file = Path(name, f"input{number}")
                file.write_bytes(array.tobytes())
                inputs.append({"name": tensor.name, "dtype": tensor.dtype, "file": str(file)})
            request = {"op": "load", "folder": str(self._folder.resolve()), "inputs": inputs}
            self.versions = self.ask(request)["versions"]

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name. PC614, PC621 for inputs that are not the model's; PC622 where it refuses."""
        self.feed(feeds)
        with tempfile.TemporaryDirectory(prefix="prunec-node-") as name:
            files = [Path(name, f"output{number}") for number in range(len(self.spec.outputs))]
            self.ask({"op": "run", "outputs": [str(file) for file in files]})
            arrays = [np.fromfile(file, tensor.dtype) for file, tensor in zip(files, self.spec.outputs, strict=True)]
        return results(self.spec, arrays)

    def time(self, clock: Clock = "wall") -> int:
        """Nanoseconds of one run on what was fed, by its own clock: nothing between the processes is in it.

        `clock` "cpu": what all threads of the process used, in whole microseconds.
        """
        return int(self.ask({"op": "time", "clock": clock})["ns"])

    def profile(self, feeds: Mapping[str, np.ndarray]) -> list[tuple[str, int]]:
        """One run on `feeds`, which stay for the next one: the nodes of every step, and its nanoseconds."""
        if self._fed is not feeds:
            self.feed(feeds)
            self._fed = feeds
        taken = self.ask({"op": "profile"})["ms"]
        return [(names, round(1e6 * ms)) for names, ms in zip(self.spec.steps, taken, strict=True)]

    def peak_rss_bytes(self) -> int:
        """Of its process, which ends."""
        return int(self.ask({"op": "end"})["peak_rss_bytes"])
