"""Small models with planted redundancy, and data for them, for the compensation tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunec.graph import Analysis
from prunec.passes.slice_channels import slice_channels
from tests.graph.builder import Builder
from tests.graph.checks import prepare


@dataclass(frozen=True)
class Case:
    """A dense model, which classes stay, and the cut."""

    dense: ir.Model
    cut: ir.Model
    analysis: Analysis
    alive: np.ndarray


class Data:
    """Smooth random images or vectors (neighbours correlate): `fit` batches first, then `held` ones."""

    fingerprint = "samples"

    def __init__(self, shape: list[int], *, fit: int = 24, held: int = 6, seed: int = 0, dtype: str = "f4") -> None:
        rng = np.random.default_rng(seed)
        self.batches = []
        for _ in range(fit + held):
            x = rng.standard_normal(shape)
            for axis in range(2, len(shape)):
                x = x + np.roll(x, 1, axis)
            self.batches.append((x + 0.3).astype(dtype))
        self.split = fit

    def fit(self) -> Iterator[dict[str, np.ndarray]]:
        return ({"x": batch} for batch in self.batches[: self.split])

    def held_out(self) -> Iterator[dict[str, np.ndarray]]:
        return ({"x": batch} for batch in self.batches[self.split :])


def conv_relu_conv(b: Builder) -> str:
    x = b.input("x", [2, 3, 10, 10])
    return b.conv(b.relu(b.conv(x, 8)), 5)


def no_bias(b: Builder) -> str:
    x = b.input("x", [2, 3, 10, 10])
    return b.conv(b.relu(b.conv(x, 8)), 5, bias=False)


def residual(b: Builder) -> str:
    x = b.input("x", [2, 3, 10, 10])
    stem = b.relu(b.conv(x, 8))
    y = b.relu(b.op("Add", [b.conv(b.relu(b.conv(stem, 8)), 8), stem]))
    y = b.relu(b.op("Add", [b.conv(b.relu(b.conv(y, 8)), 8), y]))
    return b.conv(y, 5, 1)


def depthwise_separable(b: Builder) -> str:
    x = b.input("x", [2, 3, 10, 10])
    y = b.relu(b.conv(x, 8))
    return b.conv(b.relu(b.conv(y, 8, group=8, stride=2)), 5, 1)


def grouped(b: Builder) -> str:
    x = b.input("x", [2, 3, 10, 10])
    y = b.relu(b.conv(x, 8))
    return b.conv(b.relu(b.conv(y, 8, group=2)), 5)


def flatten_gemm(b: Builder) -> str:
    x = b.input("x", [2, 3, 4, 4])
    y = b.reshape(b.relu(b.conv(x, 8, stride=2)), [2, -1])
    return b.gemm(b.relu(b.gemm(y, 12)), 4, trans_b=False)


def matmul_add(b: Builder) -> str:
    x = b.input("x", [2, 6, 8])
    return b.linear(b.relu(b.linear(x, 16)), 5)


def matmul_alone(b: Builder) -> str:
    x = b.input("x", [2, 6, 8])
    return b.linear(b.relu(b.linear(x, 16)), 5, bias=False)


def conv_transpose(b: Builder) -> str:
    x = b.input("x", [2, 3, 6, 6])
    return b.conv_transpose(b.relu(b.conv_transpose(b.relu(b.conv(x, 8)), 8)), 4)


def pre_activation(b: Builder) -> str:
    """A BatchNormalization that cannot be folded into the convolution before it."""
    x = b.input("x", [2, 3, 10, 10])
    return b.conv(b.batch_norm(b.relu(b.conv(b.relu(b.conv(x, 8)), 8))), 5)


NETS: dict[str, Callable[[Builder], str]] = {
    net.__name__: net
    for net in (
        conv_relu_conv,
        no_bias,
        residual,
        depthwise_separable,
        grouped,
        flatten_gemm,
        matmul_add,
        matmul_alone,
        conv_transpose,
        pre_activation,
    )
}


def dense_model(net: str | Callable[[Builder], str]) -> tuple[ir.Model, Analysis]:
    b = Builder(seed=3)
    b.output((NETS[net] if isinstance(net, str) else net)(b))
    return prepare(b.model())


def input_shape(model: ir.Model) -> list[int]:
    shape = model.graph.inputs[0].shape
    assert shape is not None
    return [int(d) for d in shape]  # type: ignore[arg-type]


def random_case(name: str | Callable[[Builder], str], *, share: float = 0.5, seed: int = 0) -> Case:
    """Cut `share` of every free group at random."""
    model, analysis = dense_model(name)
    rng = np.random.default_rng(seed)
    keeps = {}
    for group in analysis.groups:
        if group.pinned is None:
            mask = np.ones(group.size, bool)
            mask[rng.choice(group.size, int(group.size * share), replace=False)] = False
            keeps[group.id] = mask
    alive = analysis.alive(keeps)
    return Case(model, slice_channels(model, analysis, alive), analysis, alive)


def redundant_case(name: str | Callable[[Builder], str]) -> Case:
    """Make the last quarter of every free group copies of its first channels, and cut them."""
    model, analysis = dense_model(name)
    keeps = {}
    for group in analysis.groups:
        if group.pinned is not None:
            continue
        copies = max(1, group.size // 4)
        keeps[group.id] = np.arange(group.size) < group.size - copies
        for member in group.members:
            if member.role == "consumer":
                continue
            value = model.graph.initializers[member.tensor]
            assert value.const_value is not None
            array = value.const_value.numpy().copy()
            rows = np.moveaxis(array, member.axis, 0)
            for copy in range(copies):
                rows[member.index == group.size - copies + copy] = rows[member.index == copy]
            value.const_value = ir.tensor(array, name=value.name)
    alive = analysis.alive(keeps)
    return Case(model, slice_channels(model, analysis, alive), analysis, alive)
