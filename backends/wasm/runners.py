"""Compiled modules as contenders of `prunec.measure`: in Node, whose V8 is Chromium's, and in wasmtime."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np

import prunec
from prunec.backends.wasm.engine import WasmModel
from prunec.backends.wasm.node import NodeModel


class NodeRunner:
    """A `Runner` for the folder `wasm` of a package, which times itself: a module has one thread."""

    def load(self, model: Path, feeds: Mapping[str, np.ndarray], *, threads: int) -> None:
        self._model = NodeModel(model)
        self._model.feed(feeds)

    def run(self) -> object:
        return self._model.time()

    def time(self) -> int:
        return self._model.time()

    def processor_time(self) -> int:
        return self._model.time("cpu")

    def peak_rss_bytes(self) -> int:
        return self._model.peak_rss_bytes()

    def versions(self) -> dict[str, str]:
        return {"prunec": prunec.__version__, **self._model.versions}


class WasmtimeRunner:
    """A `Runner` for the folder `wasm` of a package. Outputs are copied, as the ES module does."""

    def load(self, model: Path, feeds: Mapping[str, np.ndarray], *, threads: int) -> None:
        self._model = WasmModel(model)
        self._feeds = dict(feeds)

    def run(self) -> object:
        return self._model.run(self._feeds)

    def versions(self) -> dict[str, str]:
        return {"prunec": prunec.__version__, "wasmtime": version("wasmtime")}
