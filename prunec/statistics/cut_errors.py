"""What a model's outputs lose to cuts after which only the next layers are refitted (`output_errors`).

A cut changes what consumers see: channels that are gone become zero or, where the layer is refitted, what the others
say about them. That is the same as new weights and a new bias: W x + b is all that the layer makes of them (but where a
convolution reads its padding, a new bias would be there and this is not). So one set of sessions serves all questions,
and each runs from the first consumer on that sees something else (`replay`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunec.graph import Analysis, Consumer
from prunec.passes.compensate.find import find_layers
from prunec.passes.compensate.layers import Layer, NormLayer
from prunec.passes.mask_statistics import MASKS, mask_statistics
from prunec.statistics.collect import CalibrationData
from prunec.statistics.output_errors import Reference, first_batches
from prunec.statistics.replay import Change, Place, Replay
from prunec.working_memory import working_bytes

SESSION_BYTES = 128 * 1024**2
"""Of weights that stay in sessions from one question to the next."""


@dataclass(frozen=True)
class Refit:
    """Of part `part` (a group of a convolution, else 0) of what layer `node` reads: x_J ≈ E[x_J] + B (x_K − E[x_K]).

    removed: int64 [r], positions J within the part; transfer: B float64 [r, n − r], K in order; mean: E[x] float64 [n]
    """

    node: str
    part: int
    removed: np.ndarray
    transfer: np.ndarray
    mean: np.ndarray


class CutErrors:
    """Asks one canonical model about cuts of its channels, on `samples` of the held-out data or a few more.

    `progress` (done, of, what) is told of every question. Raises PrunecError PC331 where no sample is held out.
    """

    def __init__(
        self,
        model: ir.Model,
        analysis: Analysis,
        calibration: CalibrationData,
        samples: int,
        *,
        threads: int = 1,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> None:
        self._dense, self._analysis, self._progress, self._asked = model, analysis, progress, 0
        self._free = np.zeros(analysis.channel_count, bool)
        for group in analysis.groups:
            self._free[group.channels] = group.pinned is None
        layers = (layer for layer in find_layers(model)[0] if isinstance(layer, Layer))
        self._layers = {layer.name: layer for layer in layers if not isinstance(layer, NormLayer)}
        self._consumers: dict[Place, list[Consumer]] = defaultdict(list)
        for consumer in analysis.consumers:
            if self._free[consumer.channels].any():
                self._consumers[consumer.node, consumer.data_index].append(consumer)
        self._model = self._written_out(np.ones(analysis.channel_count, bool))
        nodes = {node.name or "": node for node in self._model.graph}
        places = {place: _sources(nodes[place[0]], own[0]) for place, own in self._consumers.items()}
        places.update({place: () for value in _masks(self._model) for place in _uses(value)})
        memory = working_bytes(model)
        self._replay = Replay(
            self._model,
            places,
            first_batches(calibration.held_out(), samples),
            threads=threads,
            ram_bytes=memory,
            session_bytes=max(memory, SESSION_BYTES),
        )
        self._reference = Reference(self._replay.answers({}))

    def error(self, alive: np.ndarray, refits: Sequence[Refit]) -> float:
        """Of the model with only the classes `alive` (bool per class id)."""
        self._asked += 1
        if self._progress is not None:
            self._progress(0, 0, str(self._asked))
        changes = dict(self._changed_masks(alive))
        for place, consumers in self._consumers.items():
            cuts = [
                _Cut(own.axis, keep, [r for r in refits if r.node == own.node], self._layers.get(own.node))
                for own in consumers
                if not (keep := alive[own.channels]).all()
            ]
            if cuts:
                changes[place] = _InTurn(cuts)
        return self._reference.error(self._replay.answers(changes))

    # -- statistics over channels that may be cut ---------------------------------------------------------------
    def _written_out(self, alive: np.ndarray) -> ir.Model:
        if not any(self._free[statistic.ids].any() for statistic in self._analysis.statistics):
            return self._dense
        model = self._dense.clone()
        mask_statistics(model, self._analysis, alive, may_go=self._free)
        return model

    def _changed_masks(self, alive: np.ndarray) -> Iterator[tuple[Place, Change]]:
        if self._model is self._dense:
            return
        now = self._written_out(alive).graph.initializers
        for value in _masks(self._model):
            before, after = value.const_value, now[value.name or ""].const_value
            assert before is not None and after is not None
            if not np.array_equal(before.numpy(), after.numpy()):
                for place in _uses(value):
                    yield place, after.numpy


def _masks(model: ir.Model) -> list[ir.Value]:
    return [value for name, value in model.graph.initializers.items() if MASKS.fullmatch(name)]


def _uses(value: ir.Value) -> list[Place]:
    return [(node.name or "", index) for node, index in value.uses()]


def _sources(node: ir.Node, consumer: Consumer) -> tuple[int, ...]:
    """The data, and what stands for zero in it."""
    zero = consumer.zero_index
    known = zero is not None and zero < len(node.inputs) and node.inputs[zero] is not None
    return (consumer.data_index, zero) if known and zero is not None else (consumer.data_index,)


@dataclass(frozen=True, eq=False)
class _InTurn:
    """One cut per axis of the same data."""

    cuts: Sequence[_Cut]

    def __call__(self, data: np.ndarray, *zero: np.ndarray) -> np.ndarray:
        for cut in self.cuts:
            data = cut(data, *zero)
        return data


@dataclass(frozen=True, eq=False)
class _Cut:
    """What a consumer sees of `axis` when only the positions `keep` (bool [L]) are left."""

    axis: int
    keep: np.ndarray
    refits: Sequence[Refit]
    layer: Layer | None

    def __call__(self, data: np.ndarray, *zero: np.ndarray) -> np.ndarray:
        mask = self.keep.reshape([-1 if axis == self.axis % data.ndim else 1 for axis in range(data.ndim)])
        if data.dtype.kind == "b":
            return np.where(mask, data, False)
        if data.dtype.kind in "iu":
            return np.where(mask, data, zero[0] if zero else data.dtype.type(0))
        found: np.ndarray = np.multiply(data, mask.astype(data.dtype))
        if self.layer is not None:
            axis = self.axis % data.ndim
            rows = found.reshape(math.prod(data.shape[:axis]), len(self.keep), math.prod(data.shape[axis + 1 :]))
            for refit in self.refits:
                _predict(rows, refit, with_mean=self.layer.can_shift)
        return found


def _predict(rows: np.ndarray, refit: Refit, *, with_mean: bool) -> None:
    """Write what the refit says about what is gone into rows [a, L, b]."""
    first, count = refit.part * len(refit.mean), len(refit.mean)
    kept = np.delete(np.arange(count), refit.removed)
    kind = np.result_type(rows.dtype, np.float32)
    transfer = refit.transfer.astype(kind)
    seen = rows[:, first + kept].astype(kind, copy=False)
    found = transfer @ seen if rows.shape[2] > 1 else (seen[:, :, 0] @ transfer.T)[:, :, None]
    if with_mean:
        found += (refit.mean[refit.removed] - refit.transfer @ refit.mean[kept]).astype(kind)[:, None]
    rows[:, first + refit.removed] = found
