"""Engines in which WebAssembly is timed, and onnxruntime-web in the same ones: Node, headless Chromium, wasmtime.

onnxruntime-web does not run in wasmtime; beside modules there it is timed in Node.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import prunec
from benchmarks.chromium import Browser
from benchmarks.environments import NoEnvironment, environment_folder
from prunec.backends.wasm.serving import serving

REQUIREMENT = "onnxruntime-web@1.30.0"
_PEERS = Path(__file__).parent / "peers"
_IN_PAGE = "chromium_host.mjs"


@dataclass(frozen=True)
class Host:
    """Kinds of contenders: our modules, and onnxruntime-web beside them."""

    own: str
    ort: str


HOSTS: Mapping[str, Host] = {
    "node": Host("wasm-node", f"{__name__}:OrtWebRunner"),
    "chromium": Host(f"{__name__}:ChromiumRunner", f"{__name__}:OrtChromiumRunner"),
    "wasmtime": Host("wasmtime", f"{__name__}:OrtWebRunner"),
}


def npm_folder() -> Path:
    """Where onnxruntime-web is installed, first installed where it is not. Raises NoEnvironment."""
    folder = environment_folder("onnxruntime-web", [REQUIREMENT])
    if not (folder / "node_modules" / "onnxruntime-web" / "package.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "package.json").write_text('{"private": true}\n', encoding="utf-8")
        command = ["npm", "install", "--no-audit", "--no-fund", "--silent", REQUIREMENT]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NoEnvironment(f"npm could not install {REQUIREMENT}: {done.stderr.strip()[-200:]}")
    return folder


def _written(feeds: Mapping[str, np.ndarray], folder: Path) -> list[dict[str, Any]]:
    """The arrays as files that are called by their numbers, and what they are."""
    found = []
    for number, (name, array) in enumerate(feeds.items()):
        file = folder / str(number)
        file.write_bytes(np.ascontiguousarray(array).tobytes())
        found.append({"name": name, "dtype": array.dtype.name, "shape": array.shape, "file": str(file)})
    return found


class OrtWebRunner:
    """A `Runner` for .onnx files, in a Node process that times itself."""

    def load(self, model: Path, feeds: Mapping[str, np.ndarray], *, threads: int) -> None:
        self._files = tempfile.TemporaryDirectory(prefix="prunec-ort-web-")
        host = str(_PEERS / "onnxruntime_web.mjs")
        self._process = subprocess.Popen(["node", host], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        inputs = _written(feeds, Path(self._files.name))
        request = {"op": "load", "package": str(npm_folder()), "model": str(model), "inputs": inputs}
        self._versions: dict[str, str] = self._ask(request)["versions"]

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline() or '{"error": "the process ended"}')
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def run(self) -> object:
        return self.time()

    def time(self) -> int:
        return int(self._ask({"op": "time"})["ns"])

    def peak_rss_bytes(self) -> int:
        return int(self._ask({"op": "end"})["peak_rss_bytes"])

    def versions(self) -> dict[str, str]:
        return self._versions


class _InPage:
    """A page in a browser of its own, which times itself and ends with this process."""

    def _open(self, feeds: Mapping[str, np.ndarray], links: Mapping[str, Path], load: str) -> None:
        self._stack = ExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="prunec-chromium-host-")))
        (folder / "index.html").write_text("<!doctype html><title>host</title>\n", encoding="utf-8")
        shutil.copyfile(_PEERS / _IN_PAGE, folder / _IN_PAGE)
        for name, target in links.items():
            (folder / name).symlink_to(target.resolve())
        (folder / "inputs").mkdir()
        inputs = [{**given, "file": None} for given in _written(feeds, folder / "inputs")]
        address = self._stack.enter_context(serving(folder))
        self._browser = self._stack.enter_context(Browser())
        self._browser.open(f"{address}/")
        script = f"import('/{_IN_PAGE}').then((host) => (window.host = host).{load}({json.dumps(inputs)}))"
        self._browser.evaluate(script)
        if not self._browser.evaluate("crossOriginIsolated"):
            raise RuntimeError("the page has a coarse clock")

    def run(self) -> object:
        return self.time()

    def time(self) -> int:
        return int(self._browser.evaluate("host.time()"))

    def peak_rss_bytes(self) -> int:
        found = self._browser.peak_rss_bytes()
        self._stack.close()
        return found


class ChromiumRunner(_InPage):
    """A `Runner` for the folder `wasm` of a package."""

    def load(self, model: Path, feeds: Mapping[str, np.ndarray], *, threads: int) -> None:
        self._open(feeds, {"model": model}, "loadPackage")

    def versions(self) -> dict[str, str]:
        return {"prunec": prunec.__version__, "chromium": self._browser.version()}


class OrtChromiumRunner(_InPage):
    """A `Runner` for .onnx files."""

    def load(self, model: Path, feeds: Mapping[str, np.ndarray], *, threads: int) -> None:
        dist = npm_folder() / "node_modules" / "onnxruntime-web" / "dist"
        self._open(feeds, {"model.onnx": model, "ort": dist}, "loadOrt")

    def versions(self) -> dict[str, str]:
        package, version = REQUIREMENT.split("@")
        return {package: version, "chromium": self._browser.version()}
