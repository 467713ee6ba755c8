"""Static int8: ranges, weights, where quantisers go, and what the quantised model still computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from prunec.backends.onnx.session import make_session, run
from prunec.diagnostics import PrunecError
from prunec.graph.shapes import constant
from prunec.passes.canonicalise import canonicalise
from prunec.passes.quantise import layer_losses, quantise
from prunec.passes.quantise.histogram import AT_ONCE, Histogram
from prunec.passes.quantise.placement import place
from prunec.passes.quantise.ranges import choose_grid
from prunec.passes.quantise.weights import quantised_weight
from tests.graph.builder import Builder

RNG = np.random.default_rng(0)


def histogram(*arrays: np.ndarray) -> Histogram:
    found = Histogram()
    assert all(found.add(array.astype(np.float32), np.random.default_rng(0)) for array in arrays)
    return found


def network(seed: int = 0) -> ir.Model:
    """A stem, a residual block with a pool behind it, and a head."""
    b = Builder(seed)
    stem = b.relu(b.conv(b.input("x", [2, 3, 12, 12]), 16, bias=True))
    body = b.relu(b.op("Add", [b.conv(b.relu(b.conv(stem, 16, bias=True)), 16), stem]))
    flat = b.op("Flatten", [b.op("GlobalAveragePool", [b.op("MaxPool", [body], kernel_shape=[2, 2], strides=[2, 2])])])
    b.output(b.op("Gemm", [flat, b.weight(10, 16), b.const(np.ones(10, np.float32))], transB=1))
    return canonicalise(b.model())


def batches(seed: int, count: int = 4) -> Iterator[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield {"x": rng.standard_normal((2, 3, 12, 12)).astype(np.float32)}


@dataclass(frozen=True)
class Data:
    """Calibration data from a function of a seed."""

    batches: Callable[[int], Iterator[dict[str, np.ndarray]]]
    fingerprint: str = ""

    def fit(self) -> Iterator[dict[str, np.ndarray]]:
        return self.batches(1)

    def held_out(self) -> Iterator[dict[str, np.ndarray]]:
        return self.batches(2)


def relative(model: ir.Model, other: ir.Model) -> float:
    feeds = next(batches(9))
    a, b = (next(iter(run(make_session(m), feeds).values())) for m in (model, other))
    return float(np.linalg.norm(a - b) / np.linalg.norm(a))


def test_a_histogram_grows_without_losing_counts() -> None:
    small, large = RNG.uniform(-1, 1, 1000), np.array([37.0, -5.0])
    seen = histogram(np.zeros(7), small, large, np.zeros(3))
    assert seen.counts.sum() == pytest.approx(1012)
    assert (seen.low, seen.high) == (-5.0, 37.0) and seen.top >= 37
    assert seen.counts[np.abs(seen.values()) < 1.02].sum() == pytest.approx(1010)


def test_a_histogram_samples_large_arrays_and_keeps_their_ends() -> None:
    values = RNG.standard_normal(3 * AT_ONCE)
    values[123] = 99.0
    seen = histogram(values)
    assert seen.high == 99.0 and seen.counts.sum() == pytest.approx(len(values))


def test_what_is_no_number_has_no_range() -> None:
    assert not Histogram().add(np.array([1.0, np.nan], np.float32), np.random.default_rng(0))
    assert not Histogram().add(np.array([np.inf], np.float32), np.random.default_rng(0))


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_the_chosen_range_is_no_worse_than_min_max_and_has_zero(shift: float) -> None:
    fit, held = (RNG.standard_normal(20000) + shift for _ in range(2))
    fit[0] = 80.0  # an outlier that min-max would spend most levels on
    grid = choose_grid(histogram(fit), histogram(held))
    values = histogram(held).values()
    assert grid.rounded(np.array([0.0]))[0] == 0.0
    low, high = min(fit.min(), 0), 80.0
    step = (high - low) / 255
    plain = np.clip(np.rint(held / step), -255, 255) * step
    assert np.square(grid.rounded(held) - held).mean() < 0.2 * np.square(plain - held).mean()
    assert grid.rule != "min-max" and np.isfinite(values).all()


def test_values_that_are_all_zero_get_a_grid() -> None:
    grid = choose_grid(histogram(np.zeros(5)), histogram(np.zeros(5)))
    assert grid.scale > 0 and grid.rounded(np.zeros(1))[0] == 0


def test_weights_keep_their_zeros_and_biases_fit() -> None:
    weight = RNG.standard_normal((4, 6, 3, 3)).astype(np.float32)
    weight[1] = 0
    weight[2, ::2] = 0
    bias = np.array([0.0, 1e6, -3.0, 2.0], np.float32)
    integers, scales = quantised_weight(weight, 0, bias, 1e-4)
    assert integers.dtype == np.int8 and (integers[weight == 0] == 0).all() and np.abs(integers).max() <= 127
    assert (np.abs(bias / (1e-4 * scales.astype(np.float64))) <= 2**30 + 1).all()
    kept = [0, 2, 3]
    error = integers[kept] * scales[kept, None, None, None] - weight[kept]
    assert np.abs(error).max() <= np.abs(weight).max() / 127  # half a step, or the tail that was worth clipping


def test_weights_of_7_bits_cannot_overflow_16() -> None:
    weight = RNG.standard_normal((4, 8)).astype(np.float32)
    integers, scales = quantised_weight(weight, 0, None, 1.0, bits=7)
    assert np.abs(integers).max() <= 63 and 2 * 255 * 63 < 2**15
    assert np.abs(integers * scales[:, None] - weight).max() <= np.abs(weight).max() / 63


def test_residual_networks_are_eight_bits_throughout() -> None:
    model = network()
    found = place(model)
    assert len(found.layers) == 4
    kinds = {node.name: node.op_type for node in model.graph}
    read_by = {kinds[reader] for readers in found.readers.values() for reader in readers}
    assert {"Conv", "Add", "MaxPool", "GlobalAveragePool", "Flatten", "Gemm"} <= read_by and "Relu" not in read_by
    assert set(found.shared) and not set(found.shared) & set(found.values)
    assert place(model, [str(name) for name in found.layers]).values == ()


def test_the_quantised_model_computes_nearly_the_same_with_the_same_zeros() -> None:
    model = network()
    for node in model.graph:
        if node.op_type == "Conv" and node.inputs[1] is not None:
            array = constant(node.inputs[1]).copy()  # type: ignore[union-attr]
            array[::4] = 0
            node.inputs[1].const_value = ir.Tensor(array)
    found = quantise(model, Data(batches))
    onnx.checker.check_model(ir.to_proto(found.model), full_check=True)
    assert found.error < 0.05 and found.error <= found.plain and relative(model, found.model) < 0.05
    assert len(found.layers) == 4 and not found.left_float and sum(found.rules.values()) == found.values
    kinds = {value.dtype for value in found.model.graph.initializers.values()}
    assert {ir.DataType.INT8, ir.DataType.INT32, ir.DataType.UINT8} <= kinds
    integers = [constant(v) for v in found.model.graph.initializers.values() if v.dtype == ir.DataType.INT8]
    assert all((array[::4] == 0).all() for array in integers if array is not None and array.ndim == 4)
    again = quantise(model, Data(batches))
    assert ir.to_proto(again.model).SerializeToString() == ir.to_proto(found.model).SerializeToString()


def hurting() -> tuple[ir.Model, str, Data]:
    """One input channel a thousand times smaller than the others, its weights as much larger: no one scale serves."""
    model = network()
    first = next(node for node in model.graph if node.op_type == "Conv")
    weight = constant(first.inputs[1])
    assert weight is not None and first.inputs[1] is not None
    wide = weight.copy()
    wide[:, 0] *= 1000
    first.inputs[1].const_value = ir.Tensor(wide)

    def uneven(seed: int) -> Iterator[dict[str, np.ndarray]]:
        for feeds in batches(seed):
            feeds["x"][:, 0] /= 1000
            yield feeds

    return model, str(first.name), Data(uneven)


def test_a_layer_that_8_bits_hurt_goes_back_to_float() -> None:
    model, first, data = hurting()
    found = quantise(model, data, rounding="nearest")
    assert first in found.left_float and first not in found.layers
    assert found.error < 0.1 * found.plain


def test_what_8_bits_lose_is_known_layer_by_layer() -> None:
    model, first, data = hurting()
    found = layer_losses(model, data)
    names = [str(node.name) for node in model.graph if node.op_type in ("Conv", "Gemm")]
    assert set(found.alone) == set(names) and first in found.hurt
    assert found.alone[first] > 100 * max(loss for name, loss in found.alone.items() if name != first) > 0
    feeds = [*data.held_out()]
    wanted, got = (
        np.stack([next(iter(run(make_session(m), own).values())) for own in feeds])
        for m in (model, found.written(model, [name for name in names if name != first]))
    )
    assert found.alone[first] == pytest.approx(np.square(got - wanted).sum() / np.square(wanted).sum(), rel=1e-5)


def test_a_plan_says_which_layers_stay_in_float() -> None:
    """And then no others are looked for, be they hurt or not."""
    model, first, data = hurting()
    other = next(str(node.name) for node in model.graph if node.op_type == "Gemm")
    found = quantise(model, data, rounding="nearest", planned={other: "it may"})
    assert dict(found.left_float) == {other: "it may"} and first in found.layers and other not in found.layers
    everything = quantise(model, data, rounding="nearest", planned={})
    assert not everything.left_float and len(everything.layers) == 4


def test_excluded_layers_stay_and_nothing_left_is_refused() -> None:
    model = network()
    names = [str(node.name) for node in model.graph if node.op_type in ("Conv", "Gemm")]
    found = quantise(model, Data(batches), exclude=names[:1], rounding="nearest")
    assert names[0] not in found.layers and len(found.layers) == 3
    with pytest.raises(PrunecError, match="PC481"):
        quantise(model, Data(batches), exclude=names)


def test_infinite_values_are_refused() -> None:
    def broken(seed: int) -> Iterator[dict[str, np.ndarray]]:
        yield {"x": np.full((2, 3, 12, 12), np.inf, np.float32)}

    with pytest.raises(PrunecError, match="PC480"):
        quantise(network(), Data(broken))
