"""Statistics of every layer's input, from one streaming pass of the dense model over the calibration data.

    mean = E[x],  second_moment_diag = E[x²],  covariance = E[(x−mean)(x−mean)ᵀ]

over all positions of a consumed axis: pixels of a convolution, tokens of a product, samples of a flattened layer.
Means and squares see every position; covariances a seeded subset per sample (`Limits.positions`), which keeps the
whole pass at the cost of a few forward passes. Values are read off as extra outputs, as many layers at a time as stay
under `Limits.bytes_at_once` with their sums (see `sweep`); covariances that are done lie in files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunec.array_store import in_file
from prunec.cache import Cache
from prunec.diagnostics import PrunecError
from prunec.graph import Analysis
from prunec.graph.shapes import dims
from prunec.graph.weights import SeenData, seen_data
from prunec.statistics.blas_threads import blas_threads
from prunec.statistics.moments import Moments
from prunec.statistics.sweep import made_at, sweep
from prunec.working_memory import working_bytes

AVERAGED = 2048
"""Positions whose squares are added up in the type that they have."""
Needs = Literal["moments", "covariance", "gradients", "relevance"]
Double = npt.NDArray[np.float64]
Progress = Callable[[int, int, str], None]
"""(steps done, steps in all, what is being done)."""

INVERSE_DAMPING = 0.01
"""Share of the diagonal that is added before inverting (SparseGPT's p, per channel instead of on average)."""


class CalibrationData(Protocol):
    """What statistics and compensation need of `prunec.frontend.calibration.Calibration`."""

    @property
    def fingerprint(self) -> str: ...
    def fit(self) -> Iterator[dict[str, np.ndarray]]: ...
    def held_out(self) -> Iterator[dict[str, np.ndarray]]: ...


@dataclass(frozen=True)
class Limits:
    """`channels`: longest axis with a covariance; `positions`: per sample and layer, for covariances.

    `bytes_at_once`: of activations and sums; None: a quarter of the model's weights, and 16 MiB at least.
    """

    channels: int = 4096
    positions: int = 4096
    bytes_at_once: int | None = None


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class LayerStatistics:
    """Of the axis that a layer sums over, with C positions. Arrays are float64; see the module for the formulas."""

    count: int
    mean: Double
    second_moment_diag: Double
    covariance: Double | None
    inverse_diag: Double | None
    limited: str | None
    """Why there is no covariance although one was asked for."""


def collect(
    model: ir.Model,
    analysis: Analysis,
    calibration: CalibrationData,
    needs: frozenset[Needs],
    *,
    threads: int = 1,
    seed: int = 0,
    limits: Limits = DEFAULT_LIMITS,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> dict[str, LayerStatistics]:
    """Statistics by consumer node name, for every consumer with a constant weight, over `calibration.fit()`.

    `model` is dense and canonical. `cache` keeps results between runs, keyed by model, data, needs and limits.

    Raises:
        PrunecError PC330: a layer's input is not finite; PC331: there is no calibration sample.
    """
    if not needs:
        return {}
    from prunec.statistics import cache as stored

    key = "" if cache is None else stored.key_of(model, calibration.fingerprint, needs, seed, threads, limits)
    found = None if cache is None else stored.read(cache, key)
    if found is None:
        with blas_threads(threads):
            found = _collect(model, analysis, calibration, needs, threads, seed, limits, progress)
        if cache is not None:
            stored.write(cache, key, found)
    return found


def _collect(
    model: ir.Model,
    analysis: Analysis,
    calibration: CalibrationData,
    needs: frozenset[Needs],
    threads: int,
    seed: int,
    limits: Limits,
    progress: Progress | None,
) -> dict[str, LayerStatistics]:
    nodes = {node.name or "": node for node in model.graph}
    weighted = [c for c in analysis.consumers if c.weight_index is not None]
    seen = {c.node: seen_data(nodes[c.node], c.data_index) for c in weighted}
    keys: dict[str, tuple[str, int]] = {}
    for c in weighted:  # an Einsum may sum over several axes: those behind the first have names of their own
        keys[c.node if c.node not in keys else f"{c.node}#{c.axis}"] = (seen[c.node].value.name or "", c.axis)
    values = {data.value.name or "": data for data in seen.values()}
    places = made_at(model)
    ordered = sorted(dict.fromkeys(keys.values()), key=lambda key: places[key[0]])
    limit = limits.bytes_at_once or working_bytes(model)
    chunks = list(_chunks(ordered, values, calibration, "covariance" in needs, limits.channels, limit))
    sums: dict[tuple[str, int], _Sums] = {}
    done: dict[tuple[str, int], LayerStatistics] = {}
    names = [{name for name, _ in chunk} for chunk in chunks]
    for number, feeds, outputs in sweep(model, names, calibration.fit, threads=threads, ram_bytes=limit):
        if progress is not None:
            progress(number, len(chunks), "statistics")
        if chunks[number][0] not in sums:
            done.update(_finished(sums))
            sums = {key: _Sums(key, "covariance" in needs, limits, seed) for key in chunks[number]}
        for key, own in sums.items():
            own.add(values[key[0]].numbers(outputs[key[0]]), next(iter(feeds.values())).shape[:1])
    done.update(_finished(sums))
    if keys and not any(own.count for own in done.values()):
        raise PrunecError("PC331", "there is no calibration sample to take statistics from")
    return {node: done[key] for node, key in keys.items()}


def _finished(sums: dict[tuple[str, int], _Sums]) -> Iterator[tuple[tuple[str, int], LayerStatistics]]:
    """One after the other, each gone before the next."""
    while sums:
        key = next(iter(sums))
        yield key, sums.pop(key).statistics()


def _chunks(
    keys: Sequence[tuple[str, int]],
    values: Mapping[str, SeenData],
    calibration: CalibrationData,
    covariance: bool,
    channels: int,
    limit: int,
) -> Iterator[list[tuple[str, int]]]:
    """Keys whose values and sums take at most `limit` bytes together, by estimate, in their order.

    An unknown first length is that of the first batch; any other counts as 64.
    """
    shapes = {name: dims(values[name].value) or () for name, _ in keys}
    batch = 1
    if any(shape and not isinstance(shape[0], int) for shape in shapes.values()):
        feeds = next(calibration.fit(), {})
        batch = max((len(array) for array in feeds.values() if array.ndim), default=1)
    chunk: list[tuple[str, int]] = []
    size = 0
    for name, axis in keys:
        lengths = [
            d if isinstance(d, int) else 64 if i else batch for i, d in enumerate(dims(values[name].value) or ())
        ]
        own = 4 * math.prod(lengths)
        if covariance and lengths and lengths[axis] <= channels:
            own += 8 * lengths[axis] ** 2
        if chunk and size + own > limit and chunk[-1][0] != name:  # both axes of one value see it at the same time
            yield chunk
            chunk, size = [], 0
        chunk.append((name, axis))
        size += own
    if chunk:
        yield chunk


class _Sums:
    """Accumulates one axis of one value."""

    def __init__(self, key: tuple[str, int], covariance: bool, limits: Limits, seed: int) -> None:
        self.name, self.axis = key
        self.covariance = covariance
        self.limits = limits
        self.random = np.random.default_rng([seed, *self.name.encode()])
        self.count = 0
        self.mean: Double = np.zeros(0)
        self.square: Double = np.zeros(0)
        self.moments: Moments | None = None
        self.is_apart = False
        """Whether the moments have not seen everything."""
        self.waiting: list[np.ndarray] = []
        self.limited: str | None = None

    def add(self, array: np.ndarray, batch: tuple[int, ...]) -> None:
        moved = np.moveaxis(array, self.axis, -1)
        count = math.prod(moved.shape[:-1])
        if not len(self.mean):
            self._start(moved.shape[-1])
        if not count:  # an expert that no token of this batch was given to
            return
        wanted = self.limits.positions * (batch[0] if batch else 1)
        if self.moments is not None and not self.is_apart and count <= wanted:
            self.count += count  # the moments see everything: their mean and their diagonal are ours
            self._take(self.moments, moved.reshape(count, -1))
            return
        self._part()
        mean, square = averages(array, self.axis)
        self._check(mean)
        self.count += count
        share = count / self.count
        self.mean += (mean - self.mean) * share
        self.square += (square - self.square) * share
        if self.moments is not None and count > wanted:
            positions = np.sort(self.random.choice(count, wanted, replace=False))
            self._take(self.moments, moved[np.unravel_index(positions, moved.shape[:-1])])
        elif self.moments is not None:
            self._take(self.moments, moved.reshape(count, -1))

    def _take(self, moments: Moments, rows: np.ndarray) -> None:
        """Rows wait until they are half as many as channels: every update costs a pass over a whole matrix."""
        self.waiting.append(rows)
        if sum(map(len, self.waiting)) * 2 >= rows.shape[1]:
            self._flush(moments)

    def _flush(self, moments: Moments) -> None:
        if self.waiting:
            rows, self.waiting = np.concatenate(self.waiting) if len(self.waiting) > 1 else self.waiting[0], []
            moments.add(rows[None])
            self._check(moments.mean)

    def _check(self, mean: Double) -> None:
        if not np.isfinite(mean).all():
            raise PrunecError(
                "PC330",
                "the activations are not finite",
                where=self.name,
                hint="look at the calibration data and at the model in ONNX Runtime: it overflows or divides by zero",
            )

    def _part(self) -> None:
        """From here on `mean` and `square` go on by themselves."""
        if self.moments is not None:
            self._flush(self.moments)
        if self.moments is not None and not self.is_apart and self.count:
            self.mean = self.moments.mean[0].copy()
            self.square = np.diagonal(self.moments.scatter[0]) / self.count + self.mean**2
        self.is_apart = True

    def _start(self, channels: int) -> None:
        self.mean, self.square = np.zeros(channels), np.zeros(channels)
        if self.covariance and channels > self.limits.channels:
            self.limited = f"{channels} channels, above the limit of {self.limits.channels} for a covariance"
        elif self.covariance:
            self.moments = Moments(1, channels)

    def statistics(self) -> LayerStatistics:
        if not self.count:
            return LayerStatistics(0, self.mean, self.square, None, None, "no calibration sample reaches it")
        self._part()
        covariance = None if self.moments is None else self.moments.into_covariances()[0][0]
        self.moments = None
        inverse = None if covariance is None else inverse_diagonal(covariance)
        covariance = None if covariance is None else in_file(covariance)
        return LayerStatistics(self.count, self.mean, self.square, covariance, inverse, self.limited)


def averages(array: np.ndarray, axis: int) -> tuple[Double, Double]:
    """Mean and mean square over all other axes, float64 [C], where the array lies.

    Squares are added up in the array's own type (float32 at least) over blocks, and these in float64.
    """
    axis %= array.ndim
    before, length, behind = math.prod(array.shape[:axis]), array.shape[axis], math.prod(array.shape[axis + 1 :])
    total: Double = np.zeros(length)
    square: Double = np.zeros(length)
    flat = array.reshape(before, length, behind)
    for first in range(0, behind if behind > 1 else before, AVERAGED):
        own = slice(first, first + AVERAGED)
        block = flat[:, :, own] if behind > 1 else flat[own]
        block = block.astype(np.result_type(block.dtype, np.float32), copy=False)
        total += block.sum(axis=(0, 2), dtype=np.float64)
        square += np.einsum("acb,acb->ac", block, block).sum(axis=0, dtype=np.float64)
    return total / max(before * behind, 1), square / max(before * behind, 1)


def inverse_diagonal(covariance: Double, damping: float = INVERSE_DAMPING) -> Double:
    """diag((C + λ·diag(C))⁻¹); channels without any variance get λ times the mean variance (1 if all are constant)."""
    from scipy.linalg.lapack import dpotrf, dpotri

    variance = np.diagonal(covariance)
    floor = float(variance.mean()) or 1.0
    ridge = damping * np.where(variance > 1e-12 * floor, variance, floor)
    damped = np.array(covariance, order="F")
    damped.flat[:: len(damped) + 1] += ridge
    factor, failed = dpotrf(damped, lower=1, overwrite_a=1)
    inverse, singular = dpotri(factor, lower=1, overwrite_c=1)
    if failed or singular:
        raise np.linalg.LinAlgError("a covariance is not positive definite")
    found: Double = np.diagonal(inverse).copy()
    return found
