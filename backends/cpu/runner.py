"""A compiled model as a contender of `prunec.measure`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from prunec.backends.cpu.compiled import CompiledModel


class CompiledRunner:
    """A `Runner` for the folder `cpu` of a package."""

    def load(self, model: Path, feeds: Mapping[str, np.ndarray], *, threads: int) -> None:
        self._model = CompiledModel(model, threads=threads)
        self._feeds = dict(feeds)

    def run(self) -> object:
        return self._model.run(self._feeds)

    def versions(self) -> dict[str, str]:
        import prunec

        return {"prunec": prunec.__version__}
