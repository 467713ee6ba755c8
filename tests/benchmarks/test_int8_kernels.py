"""The table of int8 kernels: its last lines, layers as they are described, a real row that is measured once."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tvm", reason="needs the [tvm] extra")

from benchmarks import cpu_layers, int8_kernels, int8_layers
from benchmarks.int8_kernels import Row, all_rows, verdicts
from benchmarks.int8_layers import Layer
from prunec.backends.cpu.isa import int8_isa
from prunec.backends.cpu.kernels.compiler import Callable
from prunec.backends.cpu.lower.quad_layers import Steps, quad_product
from tests.backends.kernel_support import needs_x86


def row(density: float, peak: float, mop: float = 100.0) -> Row:
    return Row("layer", density, 1, mop, 1.0, 1.0, peak, "", "", "", "", 1.0, "4 vectors")


def test_the_verdict_counts_large_layers_that_reach_what_is_aimed_at() -> None:
    found = verdicts([row(1.0, 0.86), row(0.5, 0.9), row(0.5, 0.8), row(1.0, 0.1, mop=9.0)])
    assert [line.split(":")[0] for line in found] == ["PASS", "SHORT"]
    assert "density 0.5, 1 thread" in found[1] and "1 of 2 layers" in found[1] and "least 0.80" in found[1]


def test_layers_have_the_share_of_blocks_that_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_layers, "LAYERS", {"conv": (32, 24, 3, 7, 2)})
    matrix = Layer("conv", 0.25).weights().matrix
    blocks = matrix.reshape(6, 4, 8, 4, 9).any(axis=(1, 3))
    assert blocks.mean() == 0.25 and np.count_nonzero(matrix) == 0.25 * matrix.size


@needs_x86
@pytest.mark.parametrize("layer", [(20, 24, 3, 9, 2), (32, 24, 0, 19, 1)], ids=["convolution", "product"])
def test_both_compute_the_same_layer(layer: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours and ONNX Runtime's bytes differ by one step at most, and by none almost everywhere."""
    monkeypatch.setattr(int8_layers, "LAYERS", {"layer": layer})
    subject, isa = Layer("layer", 0.5), int8_isa()
    (run,) = int8_layers.in_onnx_runtime(subject, 1)
    (theirs,) = run()  # type: ignore[misc]
    x, y = subject.images
    image = np.random.default_rng(1).integers(0, 256, (x.height * x.width, x.channels)).astype(np.uint8)
    built = quad_product(isa, subject.weights(), Steps(), subject.taps, x, y)
    packed = x.pack(image.T.reshape(1, x.channels, x.height, x.width), 128)
    ours = y.unpack(Callable(built.kernel, isa)(packed, *built.weights, np.zeros(y.size, np.uint8)))
    wanted = theirs.reshape(y.height, y.width, y.channels).transpose(2, 0, 1)
    apart = np.abs(ours[0].astype(int) - wanted)
    assert apart.max() <= 1 and apart.mean() < 0.01 and 0 < wanted.mean() < 255


@needs_x86
def test_rows_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (int8_kernels, int8_layers, cpu_layers):
        monkeypatch.setattr(module, "LAYERS", {"small": (32, 32, 1, 6, 1)})
    arguments = argparse.Namespace(only="*", densities=[0.5], threads=[1], runs=2, keep=tmp_path / "rows.json")
    (found,) = list(all_rows(arguments, int8_isa()))
    assert 0 < found.peak < 1 and found.us > 0 and found.gops > 0 and 0 < found.rule <= 1
    assert all(float(ratio.split()[0]) > 0 for ratio in (found.own_float, found.ort_int8, found.ort_float))
    monkeypatch.setattr(int8_kernels, "measured", lambda *_: pytest.fail("measured again"))
    assert list(all_rows(arguments, int8_isa())) == [found]
