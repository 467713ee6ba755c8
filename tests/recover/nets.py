"""Small dense models, what pruning left of them, and data: what recovery starts from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunec.graph import analyse
from prunec.graph.shapes import constant
from prunec.passes.canonicalise import canonicalise
from prunec.passes.compensate.pairs import Kept
from prunec.passes.slice_channels import slice_channels
from tests.graph.builder import Builder


class Data:
    """Smooth random batches: five `fit`, two `held_out`, eight samples each."""

    fingerprint = "nets"

    def __init__(self, shape: tuple[int, ...], *, fit: int = 5, high: int = 0) -> None:
        rng = np.random.default_rng(0)
        self.batches: list[dict[str, np.ndarray]] = []
        for _ in range(fit + 2):
            x = rng.standard_normal((8, *shape))
            for axis in range(2, x.ndim):
                x = x + np.roll(x, 1, axis)
            x = rng.integers(0, high, (8, *shape)) if high else x
            self.batches.append({"x": x.astype(np.int64 if high else np.float32)})

    def fit(self) -> Iterator[dict[str, np.ndarray]]:
        return iter(self.batches[:-2])

    def held_out(self) -> Iterator[dict[str, np.ndarray]]:
        return iter(self.batches[-2:])


@dataclass(frozen=True)
class Case:
    """A dense model and what is left of it."""

    dense: ir.Model
    pruned: ir.Model
    kept: Kept
    data: Data


def model(build: Callable[[Builder], str], seed: int = 0) -> ir.Model:
    b = Builder(seed)
    b.output(build(b))
    return canonicalise(b.model())


def residual(b: Builder) -> str:
    """Stem, two residual blocks, a classifier; any batch."""
    y = b.relu(b.conv(b.input("x", ["n", 3, 8, 8]), 12))  # type: ignore[list-item]
    for _ in range(2):
        y = b.relu(b.op("Add", [b.conv(b.relu(b.conv(y, 12)), 12), y]))
    return b.gemm(b.op("Flatten", [b.op("GlobalAveragePool", [y])]), 10)


def cut(build: Callable[[Builder], str] = residual, shape: tuple[int, ...] = (3, 8, 8)) -> Case:
    """Every second channel of every group gone."""
    dense = model(build)
    analysis = analyse(dense)
    keeps = {group.id: np.arange(group.size) % 2 == 0 for group in analysis.groups if group.pinned is None}
    alive = analysis.alive(keeps)
    return Case(dense, slice_channels(dense, analysis, alive), Kept(analysis, alive), Data(shape))


def sparse(build: Callable[[Builder], str] = residual, data: Data | None = None, share: float = 0.5) -> Case:
    """The smallest weights of every tensor zero."""
    dense = model(build)
    pruned = dense.clone()
    for value in pruned.graph.initializers.values():
        weight = constant(value)
        if weight is not None and weight.ndim > 1 and weight.dtype == np.float32 and min(weight.shape[:2]) > 1:
            zeroed = np.where(np.abs(weight) < np.quantile(np.abs(weight), share), np.float32(0), weight)
            value.const_value = ir.Tensor(zeroed, name=value.name)
    analysis = analyse(dense)
    return Case(dense, pruned, Kept(analysis, np.ones(analysis.channel_count, bool)), data or Data((3, 8, 8)))


def arrays(found: ir.Model) -> dict[str, np.ndarray]:
    return {name: value.const_value.numpy() for name, value in found.graph.initializers.items() if value.const_value}
