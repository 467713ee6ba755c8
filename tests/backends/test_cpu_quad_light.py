"""Depthwise convolutions of int8, conversions from and to floats, and borders, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tvm", reason="needs the [tvm] extra")

from prunec.backends.cpu.isa import Isa, int8_isa
from prunec.backends.cpu.kernels.base import Access
from prunec.backends.cpu.kernels.compiler import Callable
from prunec.backends.cpu.lower.quad_layers import Taps, border, dequantise, quad_depthwise, quantise
from prunec.backends.cpu.quads import Quads
from tests.backends.int8_support import bytes_wanted, case, int8_isas, run
from tests.backends.kernel_support import runs

AROUND = (1, 1, 1, 1)


@pytest.mark.parametrize("isa", int8_isas())
@pytest.mark.parametrize(
    ("kernel", "taps", "size", "borders"),
    [
        (3, Taps(pads=AROUND), (6, 7), (1, 1, 1)), (3, Taps((2, 2), pads=AROUND), (9, 37), (1, 0, 1)),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in (
                (3, Taps(pads=AROUND), (5, 70), (2, 1, 0)), (5, Taps((2, 2), pads=(1, 1, 2, 2)), (8, 8), (2, 0, 0)),
                (3, Taps((3, 3)), (10, 10), (0, 0, 0)), (3, Taps(dilations=(2, 2), pads=(2,) * 4), (6, 9), (2, 2, 2)),
                (1, Taps(), (1, 1), (0, 0, 0)),
            )
        ),
    ],
)  # fmt: skip
def test_depthwise(isa: Isa, kernel: int, taps: Taps, size: tuple[int, int], borders: tuple[int, int, int]) -> None:
    """Strides, dilations, lines that are as far apart in x, y and a residual or not; a channel without weights."""
    shape = (2, 10, *size)
    given = case(kernel, shape, 10, kernel, taps, has_residual=True, low=20, high=240, depthwise=True)
    wanted = bytes_wanted(given)
    x, y, residual = (
        Quads(*own, (wide,) * 4) for own, wide in zip((shape, wanted.shape, wanted.shape), borders, strict=True)
    )
    assert given.residual is not None
    built = quad_depthwise(isa, given.weights, given.steps, given.taps, x, y, residual=residual)
    packed = x.pack(given.image, given.weights.x_zero), residual.pack(given.residual, 1)
    np.testing.assert_array_equal(y.unpack(run(built, isa, packed[0], y, packed[1])), wanted)


@pytest.mark.parametrize("isa", int8_isas())
@pytest.mark.parametrize(
    ("shape", "is_last"), [((2, 3, 5, 21), False), ((1, 32, 1, 19), True), ((1, 6, 3, 5), False), ((1, 6, 1, 20), True)]
)
def test_floats_become_quads_and_floats_again(isa: Isa, shape: tuple[int, ...], is_last: bool) -> None:
    """As QuantizeLinear and DequantizeLinear have it: divided, to even, then the zero point, then saturated."""
    rng = np.random.default_rng(len(shape))
    n, c, h, w = shape
    scale, zero = np.float32(0.37), 131
    x = (rng.standard_normal(shape) * 60).astype(np.float32)
    ties = rng.random(shape) < 0.3
    x[ties] = ((rng.integers(-200, 200, shape) + 0.5).astype(np.float32) * scale)[ties]
    x.reshape(-1)[:3] = (1e30, -1e30, 0)
    strides = (c * h * w, 1, w * c, c) if is_last else (c * h * w, h * w, w, 1)
    floats = Access(x.size, 0, strides)
    order = (0, 2, 3, 1) if is_last else (0, 1, 2, 3)
    layout = Quads(n, c, h, w, (1, 1, 0, 0))
    built = quantise(floats, layout, float(scale), zero)
    held = run(built, isa, np.ascontiguousarray(x.transpose(order)), layout)
    wanted = np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(layout.unpack(held), wanted)

    built = dequantise(layout, floats, float(scale), zero)
    back = runs(built.kernel, isa)(held, *built.weights, np.full(x.size, np.nan, np.float32))
    found = back.reshape([shape[axis] for axis in order]).transpose(np.argsort(order))
    np.testing.assert_array_equal(found, (wanted.astype(np.float32) - np.float32(zero)) * scale)


@pytest.mark.parametrize("around", [(1, 1, 1, 1), (0, 0, 0, 0), (3, 2, 1, 4), (0, 17, 0, 0)])
def test_borders_leave_the_image_alone(around: tuple[int, int, int, int]) -> None:
    isa, layout = int8_isa(), Quads(2, 6, 4, 5, around)
    image = np.random.default_rng(0).integers(0, 256, (2, 6, 4, 5)).astype(np.uint8)
    built = border(layout, 77)
    found = Callable(built.kernel, isa)(*built.weights, layout.pack(image, 5))
    planes = layout.batch * layout.strides[0]
    wanted = layout.pack(image, 77)
    # the last quad has two channels that are none
    np.testing.assert_array_equal(layout.unpack(found), image)
    ours, theirs = (held[:planes].reshape(2, 2, -1, 4)[..., :2] for held in (found, wanted))
    np.testing.assert_array_equal(ours, theirs)
