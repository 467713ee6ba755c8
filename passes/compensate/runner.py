"""The dense and the pruned model side by side, from layer to layer.

For layer k the dense model runs up to and including it, the pruned model up to its input; after the fit the pruned
model goes on with the layer's new weights. Every node runs once per model over the whole calibration set, and what
later segments or fits read is kept in an `ArrayStore` until its last reader is done.

    with SequentialRunner(dense, pruned, stops, calibration, …) as runner:
        for k in range(len(stops)):
            runner.advance(k)
            runner.value("pruned", name, batch)
        runner.finish()  # both models to their outputs, on the held-out batches
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
import onnx_ir as ir

from prunec.array_store import ArrayStore
from prunec.backends.onnx.segment import Segment, proto_of
from prunec.diagnostics import PrunecError
from prunec.graph.reads import reads
from prunec.statistics.collect import CalibrationData
from prunec.working_memory import working_bytes

Side = Literal["dense", "pruned"]
Store = ArrayStore[tuple[Side, str, int]]
"""Arrays by model, value name and batch."""


@dataclass(frozen=True)
class Stop:
    """A layer where both models halt, and the values its fit reads there."""

    node: str
    dense: frozenset[str]
    pruned: frozenset[str]


class SequentialRunner:
    """Executes both models segment by segment. Batches are numbered: those to fit first, then the held-out ones.

    Raises PrunecError PC331 where the calibration data has no samples to fit or to hold out.
    """

    def __init__(
        self,
        dense: ir.Model,
        pruned: ir.Model,
        stops: Sequence[Stop],
        calibration: CalibrationData,
        *,
        threads: int = 1,
        ram_bytes: int | None = None,
        folder: Path | None = None,
    ) -> None:
        self.store: Store = ArrayStore(working_bytes(dense) if ram_bytes is None else ram_bytes, folder, is_mapped=True)
        try:
            self.fit, self.held_out = self._take_inputs(calibration)
            fed = frozenset(name for _, name, _ in self.store)
            names = [stop.node for stop in stops]
            self._sides = (
                _Side("dense", dense, names, [stop.dense for stop in stops], fed, includes_layer=True),
                _Side("pruned", pruned, names, [stop.pruned for stop in stops], fed, includes_layer=False),
            )
        except BaseException:
            self.store.close()
            raise
        self._threads = threads

    def _take_inputs(self, calibration: CalibrationData) -> tuple[range, range]:
        number = 0
        ends = []
        for batches in (calibration.fit(), calibration.held_out()):
            for feeds in batches:
                for name, array in feeds.items():
                    own = array.copy()  # the source may fill the same array again
                    self.store.put(("dense", name, number), own)
                    self.store.put(("pruned", name, number), own)
                number += 1
            ends.append(number)
        if not 0 < ends[0] < ends[1]:
            raise PrunecError(
                "PC331", "compensation needs samples to fit and samples to hold out", hint="give at least two samples"
            )
        return range(ends[0]), range(ends[0], ends[1])

    def advance(self, stop: int) -> None:
        """Run both models to the given stop (stops are visited in order)."""
        for side in self._sides:
            side.run(stop, self.store, range(self.held_out.stop), self._threads)

    def finish(self) -> None:
        """Run both models to their outputs on the held-out batches."""
        for side in self._sides:
            side.run(len(side.segments) - 1, self.store, self.held_out, self._threads)

    def value(self, side: Side, name: str, batch: int) -> np.ndarray:
        return self.store.get((side, name, batch))

    def shape(self, side: Side, name: str, batch: int) -> tuple[int, ...]:
        return self.store.shape((side, name, batch))

    def outputs(self, side: Side, batch: int) -> list[np.ndarray]:
        """A model's outputs on a held-out batch, after `finish`."""
        (model,) = (own.model for own in self._sides if own.side == side)
        found = []
        for value in model.graph.outputs:
            constant = value.const_value if value.is_initializer() else None
            found.append(self.value(side, value.name or "", batch) if constant is None else constant.numpy())
        return found

    def __enter__(self) -> SequentialRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.store.close()


class _Side:
    """One model cut into segments. Time 2k is segment k, time 2k + 1 the fit of layer k."""

    def __init__(
        self,
        side: Side,
        model: ir.Model,
        stops: list[str],
        fits: list[frozenset[str]],
        fed: frozenset[str],
        *,
        includes_layer: bool,
    ) -> None:
        self.side, self.model, self.fed = side, model, fed
        self.segments = _split(model, stops, includes_layer)
        self.last_read: dict[str, int] = {}
        for k, nodes in enumerate(self.segments):
            for node in nodes:
                for value in reads(node):
                    self.last_read[value.name or ""] = 2 * k
            for name in fits[k] if k < len(fits) else ():
                self.last_read[name] = 2 * k + 1
        for value in model.graph.outputs:
            self.last_read[value.name or ""] = 2 * len(self.segments)

    def run(self, k: int, store: Store, batches: range, threads: int) -> None:
        for side, name in sorted({key[:2] for key in store}):
            if side == self.side and self.last_read.get(name, -1) < 2 * k:
                self._drop(store, name, range(batches.stop))
        nodes = self.segments[k]
        if not nodes:
            return
        made = {value.name or "" for node in nodes for value in node.outputs}
        wanted = [name for name in sorted(made) if self.last_read.get(name, -1) > 2 * k]
        read = dict.fromkeys(value for node in nodes for value in reads(node) if value.name not in made)
        weights = [value for value in read if value.is_initializer() and value.name not in self.fed]
        inputs = [value.name or "" for value in read if value not in weights]
        done = [name for name in inputs if self.last_read[name] <= 2 * k]
        segment: Segment | None = None
        for batch in batches if wanted else ():
            feeds = {name: store.get((self.side, name, batch)) for name in inputs}
            if segment is None:
                protos = [proto_of(node) for node in nodes]
                segment = Segment(self.model, protos, weights, feeds, wanted, threads)
            for name, array in segment.run(feeds).items():
                store.put((self.side, name, batch), array)
            for name in done:
                store.drop((self.side, name, batch))

    def _drop(self, store: Store, name: str, batches: range) -> None:
        for batch in batches:
            store.drop((self.side, name, batch))


def _split(model: ir.Model, stops: list[str], includes_layer: bool) -> list[list[ir.Node]]:
    """Nodes in graph order, a new list after (or before) each stop; the last list is what follows the last stop."""
    segments: list[list[ir.Node]] = [[]]
    waiting = list(stops)
    for node in model.graph:
        at_stop = bool(waiting) and node.name == waiting[0]
        if at_stop and not includes_layer:
            segments.append([])
        segments[-1].append(node)
        if at_stop and includes_layer:
            segments.append([])
        if at_stop:
            waiting.pop(0)
    assert not waiting, f"not in topological order: {waiting}"
    return segments
