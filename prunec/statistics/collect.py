"""Statistics of every layer's input, from one streaming pass of the dense model over the calibration data.

    mean = E[x],  second_moment_diag = E[x²],  covariance = E[(x−mean)(x−mean)ᵀ]

over all positions of a consumed axis: pixels of a convolution, tokens of a product, samples of a flattened layer.
Means and squares see every position; covariances a seeded subset per sample (`Limits.positions`), which keeps the
whole pass at the cost of a few forward passes. Values are read off as extra outputs, in as many runs over the model
as it takes to stay under `Limits.bytes_per_run`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunec.backends.onnx.session import make_session, run
from prunec.cache import Cache
from prunec.diagnostics import PrunecError
from prunec.graph import Analysis
from prunec.graph.shapes import dims
from prunec.graph.weights import seen_data
from prunec.statistics.blas_threads import blas_threads
from prunec.statistics.moments import Moments

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
    """`channels`: longest axis with a covariance; `positions`: per sample and layer, for covariances."""

    channels: int = 4096
    positions: int = 4096
    bytes_per_run: int = 256 * 1024**2


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
    sums: dict[tuple[str, int], _Sums] = {}
    chunks = list(_chunks({name: values[name].value for name, _ in keys.values()}, limits.bytes_per_run))
    for number, names in enumerate(chunks):
        wanted = [key for key in dict.fromkeys(keys.values()) if key[0] in names]
        sums.update({key: _Sums(key, "covariance" in needs, limits, seed) for key in wanted})
        session = make_session(model, threads=threads, outputs=sorted(names))
        for feeds in calibration.fit():
            if progress is not None:
                progress(number, len(chunks), "statistics")
            outputs = run(session, feeds)
            for key in wanted:
                sums[key].add(values[key[0]].numbers(outputs[key[0]]), next(iter(feeds.values())).shape[:1])
    if keys and not any(s.count for s in sums.values()):
        raise PrunecError("PC331", "there is no calibration sample to take statistics from")
    done = {key: s.statistics() for key, s in sums.items()}
    return {node: done[key] for node, key in keys.items()}


def _chunks(values: Mapping[str, ir.Value], limit: int) -> Iterator[set[str]]:
    """Names of values whose estimated bytes stay under the limit together.

    An unknown first length counts as 8, the most samples that calibration puts together, any other as 64.
    """
    names: set[str] = set()
    size = 0
    for name, value in values.items():
        lengths = [d if isinstance(d, int) else 64 if axis else 8 for axis, d in enumerate(dims(value) or ())]
        own = 4 * int(np.prod(lengths, dtype=np.int64))
        if names and size + own > limit:
            yield names
            names, size = set(), 0
        names.add(name)
        size += own
    if names:
        yield names


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
        self.limited: str | None = None

    def add(self, array: np.ndarray, batch: tuple[int, ...]) -> None:
        rows = np.moveaxis(array, self.axis, -1)
        rows = rows.reshape(-1, rows.shape[-1])
        if not len(self.mean):
            self._start(rows.shape[1])
        if not len(rows):  # an expert that no token of this batch was given to
            return
        mean = rows.mean(axis=0, dtype=np.float64)
        if not np.isfinite(mean).all():
            raise PrunecError(
                "PC330",
                "the activations are not finite",
                where=self.name,
                hint="look at the calibration data and at the model in ONNX Runtime: it overflows or divides by zero",
            )
        self.count += len(rows)
        share = len(rows) / self.count
        self.mean += (mean - self.mean) * share
        self.square += (np.square(rows, dtype=np.float64).mean(axis=0) - self.square) * share
        if self.moments is not None:
            wanted = self.limits.positions * (batch[0] if batch else 1)
            if len(rows) > wanted:
                rows = rows[np.sort(self.random.choice(len(rows), wanted, replace=False))]
            self.moments.add(rows[None])

    def _start(self, channels: int) -> None:
        self.mean, self.square = np.zeros(channels), np.zeros(channels)
        if self.covariance and channels > self.limits.channels:
            self.limited = f"{channels} channels, above the limit of {self.limits.channels} for a covariance"
        elif self.covariance:
            self.moments = Moments(1, channels)

    def statistics(self) -> LayerStatistics:
        if not self.count:
            return LayerStatistics(0, self.mean, self.square, None, None, "no calibration sample reaches it")
        covariance = None if self.moments is None else self.moments.covariance()[0]
        inverse = None if covariance is None else inverse_diagonal(covariance)
        return LayerStatistics(self.count, self.mean, self.square, covariance, inverse, self.limited)


def inverse_diagonal(covariance: Double, damping: float = INVERSE_DAMPING) -> Double:
    """diag((C + λ·diag(C))⁻¹); channels without any variance get λ times the mean variance (1 if all are constant)."""
    from scipy.linalg import cho_factor, cho_solve

    variance = np.diagonal(covariance)
    floor = float(variance.mean()) or 1.0
    ridge = damping * np.where(variance > 1e-12 * floor, variance, floor)
    factor = cho_factor(covariance + np.diag(ridge), lower=True)
    inverse: Double = np.diagonal(cho_solve(factor, np.eye(len(covariance)))).copy()
    return inverse
