"""Times of models that run elsewhere, as shares of the dense model's: sums of what layers are modelled to take.

Takes the place of `shares.Stopwatch` where nothing can be measured. What a model says of its layers lies in a file; all
else takes as long as in the dense model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from prunec.measure.shares import Candidate, Share

_FILE = "layers.json"


def write_layers(folder: Path, us: Mapping[str, float]) -> Path:
    """Write what each layer takes, in µs by node, into `folder`, and return that."""
    (folder / _FILE).write_text(json.dumps(dict(us)), encoding="utf-8")
    return folder


class ModelledWatch:
    """Shares of the model whose layers were written into the folder `dense`; `rest_us`: what it takes beside them."""

    def __init__(self, dense: Path, rest_us: float) -> None:
        self._dense, self._rest_us = _read(dense), rest_us

    def shares(
        self,
        candidates: Sequence[Candidate],
        *,
        how: Mapping[str, float],
        progress: Callable[[int, int], None] = lambda done, of: None,
    ) -> list[Share]:
        """In the order of `candidates`; their intervals have no width. `how` is for what is measured."""
        found, whole = list[Share](), self._rest_us + sum(self._dense.values())
        for number, (_, write) in enumerate(candidates):
            progress(number, len(candidates))
            with write() as folder:
                own = _read(folder)
            taken = self._rest_us + sum(own.get(node, us) for node, us in self._dense.items())
            found.append(Share(taken / whole, (taken / whole,) * 2, whole / 1e3))
        progress(len(candidates), len(candidates))
        return found


def _read(folder: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    return found
