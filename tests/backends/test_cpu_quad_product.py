"""int8 products against int64: exact sums, exact bytes, awkward sizes, every instruction set of this machine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("tvm", reason="needs the [tvm] extra")

from prunec.backends.cpu.isa import AVX2, AVX512, AVX512_VNNI, WASM, Isa, cpu_flags, int8_isa
from prunec.backends.cpu.kernels.compiler import Callable
from prunec.backends.cpu.kernels.quad_epilogue import Addition
from prunec.backends.cpu.lower.quad_layers import Choice, Steps, Taps, quad_product
from prunec.backends.cpu.quad_weights import Weights, packing
from prunec.backends.cpu.quads import FloatRows, Quads
from prunec.diagnostics import PrunecError
from tests.backends.int8_support import Case, bytes_wanted, case, int8_isas, largest_weight, run, sums

NEAR = Taps(pads=(1, 1, 1, 1))


def same(
    given: Case, isa: Isa, x: Quads, y: Quads, residual: Quads | None = None, choice: Choice | None = None
) -> None:
    """The kernel's bytes are those wanted."""
    weights = given.weights
    built = quad_product(isa, weights, given.steps, given.taps, x, y, residual=residual, choice=choice)
    beside = None if given.residual is None or residual is None else residual.pack(given.residual, 3)
    found = run(built, isa, x.pack(given.image, weights.x_zero), y, beside)
    np.testing.assert_array_equal(y.unpack(found), bytes_wanted(given))


@pytest.mark.parametrize("isa", int8_isas())
@pytest.mark.parametrize(
    ("pixels", "channels", "outputs", "density"), [(1, 4, 4, 1.0), (7, 3, 5, 1.0), (49, 37, 30, 0.5), (83, 8, 18, 0.0)]
)
def test_products_of_awkward_sizes(isa: Isa, pixels: int, channels: int, outputs: int, density: float) -> None:
    """Rows, channels and outputs that fill nothing; a row of blocks without any, and a layer without any."""
    given = case(pixels, (1, channels, 1, pixels), outputs, density=density, largest=largest_weight(isa))
    same(given, isa, Quads(1, channels, 1, pixels), Quads(1, outputs, 1, pixels), choice=Choice(2, 1))


@pytest.mark.parametrize("isa", int8_isas(is_fast=True))
def test_sums_are_exact(isa: Isa) -> None:
    """As floats, with a scale of one: sums below 2²⁴ are the integers themselves. All weights and inputs extreme."""
    rng, largest = np.random.default_rng(0), largest_weight(isa)
    given = case(0, (2, 36, 1, 21), 21)
    extreme = replace(
        given, image=np.where(rng.random(given.image.shape) < 0.9, 255, 0).astype(np.uint8),
        weights=replace(
            given.weights, matrix=np.where(rng.random((21, 36, 1, 1)) < 0.9, -largest - 1, largest).astype(np.int8),
            scale=np.ones(21, np.float32), x_zero=0,
        ),
        steps=Steps(low=-np.inf, high=np.inf),
    )  # fmt: skip
    y = FloatRows(2, 21, 21)
    x = Quads(2, 36, 1, 21)
    built = quad_product(isa, extreme.weights, extreme.steps, extreme.taps, x, y)
    found = run(built, isa, x.pack(extreme.image, 0), y)
    wanted = sums(extreme)
    assert np.abs(wanted).max() > 2**13 * (largest + 1) / 1.1
    np.testing.assert_array_equal(found.reshape(2, 21, 21), wanted[:, :, 0].transpose(0, 2, 1))


@pytest.mark.parametrize("isa", [AVX2, AVX512], ids=lambda isa: isa.name)
def test_products_of_bytes_without_vnni_never_saturate(isa: Isa) -> None:
    """Pairs of weights that just fit, each sign and every way to share 128, on pixels of 255; and others of 7 bits."""
    if not cpu_flags().issuperset(isa.flags):
        pytest.skip(f"this CPU lacks {', '.join(sorted(set(isa.flags) - cpu_flags()))}")
    fitting = [(127, 1), (1, 127), (64, 64), (-128, 0), (0, -128), (-64, -64), (-127, -1), (127, -128)]
    rng = np.random.default_rng(1)
    pairs = np.array(fitting, np.int8)[rng.integers(0, len(fitting), (21, 18))]
    given = case(0, (2, 36, 1, 21), 21)
    extreme = replace(
        given, image=np.full(given.image.shape, 255, np.uint8),
        weights=replace(
            given.weights, matrix=pairs.reshape(21, 36, 1, 1), scale=np.ones(21, np.float32), x_zero=0
        ),
        steps=Steps(low=-np.inf, high=np.inf),
    )  # fmt: skip
    x, y = Quads(2, 36, 1, 21), FloatRows(2, 21, 21)
    built = quad_product(isa, extreme.weights, extreme.steps, extreme.taps, x, y)
    assert built.kernel.words == 1  # type: ignore[attr-defined]
    found = run(built, isa, x.pack(extreme.image, 0), y)
    np.testing.assert_array_equal(found.reshape(2, 21, 21), sums(extreme)[:, :, 0].transpose(0, 2, 1))
    for kernel, taps, choice in ((3, NEAR, Choice(2, 3)), (3, Taps((2, 2), pads=(1, 1, 1, 1)), None)):
        given = case(kernel, (2, 21, 9, 11), 14, kernel, taps, 0.5, has_residual=True, low=9, high=200, largest=63)
        n, m, h, w = bytes_wanted(given).shape
        beside = Quads(n, m, h, w)
        same(given, isa, Quads(2, 21, 9, 11, (1, 1, 1, 1)), Quads(n, m, h, w), beside, choice)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ((64, 64, -64, -64), 1),
        ((127, 1, 0, -128), 1),
        ((127, 2, 0, 0), 2),
        ((0, 0, -128, -1), 2),
        ((5, 127, 127, 0), 2),
    ],
)
def test_where_a_pair_may_saturate_bytes_are_widened(weights: tuple[int, ...], words: int) -> None:
    matrix = np.array(weights, np.int8).reshape(1, 4, 1, 1)
    assert packing(AVX2, matrix).words == packing(AVX512, matrix).words == words
    assert packing(AVX512_VNNI, matrix).words == 1
    assert packing(WASM, matrix).words == packing(AVX2, matrix, is_depthwise=True).words == 2
    assert packing(AVX2, matrix[:, :3]).words == (1 if weights[:2] != (127, 2) and weights[1] != 127 else 2)


@pytest.mark.parametrize("isa", int8_isas())
@pytest.mark.parametrize(
    ("kernel", "taps", "borders", "choice"),
    [
        (1, Taps(), (0, 1, 0), Choice(2, 2)), (3, NEAR, (1, 1, 1), Choice(2, 3)),
        (3, Taps((2, 2), pads=(1, 1, 1, 1)), (1, 1, 0), None),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in (
                (1, Taps(), (0, 0, 0), None), (1, Taps((2, 2)), (0, 1, 1), None), (3, NEAR, (1, 0, 1), None),
                (3, Taps((2, 2), pads=(0, 0, 1, 1)), (1, 0, 0), None), (3, NEAR, (2, 0, 0), Choice(4)),
                (3, Taps(dilations=(2, 2), pads=(2, 2, 2, 2)), (2, 0, 2), None), (2, Taps((3, 3)), (0, 0, 0), None),
                (5, Taps((2, 1), pads=(2, 1, 2, 3)), (3, 3, 3), Choice(3, 2)),
            )
        ),
    ],
)  # fmt: skip
def test_convolutions(isa: Isa, kernel: int, taps: Taps, borders: tuple[int, int, int], choice: Choice | None) -> None:
    """Strides, dilations, borders of x, y and a residual that are alike or not and passes."""
    given = case(
        kernel, (2, 21, 9, 11), 14, kernel, taps, 0.5, has_residual=True, low=9, high=200, largest=largest_weight(isa)
    )  # fmt: skip
    n, m, h, w = bytes_wanted(given).shape
    x, y, residual = (
        Quads(*size, (border,) * 4)
        for size, border in zip(((2, 21, 9, 11), (n, m, h, w), (n, m, h, w)), borders, strict=True)
    )
    same(given, isa, x, y, residual, choice)


@pytest.mark.parametrize("addition", ["sum_first", "residual_first"])
@pytest.mark.parametrize("isa", int8_isas())
def test_sums_may_be_rounded_before_a_residual_is_added(isa: Isa, addition: Addition) -> None:
    """As a graph says that quantises what a convolution gives and then adds."""
    given = case(5, (1, 12, 4, 6), 8, has_residual=True, low=9, largest=largest_weight(isa))
    rounds = replace(given.steps, addition=addition, first_scale=0.61, first_zero=93, first_low=3, first_high=213)
    given = replace(given, steps=rounds)
    images = Quads(1, 12, 4, 6), Quads(1, 8, 4, 6), Quads(1, 8, 4, 6)
    assert not np.array_equal(bytes_wanted(given), bytes_wanted(replace(given, steps=Steps(9, 9, 255, 0.37, 77))))
    same(given, isa, *images)


def test_two_layers_write_one_image() -> None:
    """Concatenation: each writes its own quads of y and leaves those of the other alone."""
    isa = int8_isa()
    first, second = case(1, (1, 8, 3, 5), 8), case(2, (1, 8, 3, 5), 6)
    y = Quads(1, 14, 3, 5, (1, 1, 1, 1))
    found = np.full(y.size, 99, np.uint8)
    for given, channel in ((second, 8), (first, 0)):
        x = Quads(1, 8, 3, 5)
        built = quad_product(isa, given.weights, given.steps, given.taps, x, y, y_channel=channel)
        found = Callable(built.kernel, isa)(x.pack(given.image, 131), *built.weights, found)
    wanted = np.concatenate([bytes_wanted(first), bytes_wanted(second)], axis=1)
    np.testing.assert_array_equal(y.unpack(found), wanted)


@pytest.mark.parametrize(
    ("bias", "scale"), [(2**31 - 1, 1e-3), (0, 1e6), (0, float("inf"))], ids=["sum", "scaled", "infinite"]
)
def test_sums_that_do_not_fit_are_refused(bias: int, scale: float) -> None:
    matrix = np.ones((4, 4, 1, 1), np.int8) * 127
    weights = Weights(matrix, np.full(4, bias, np.int32), np.full(4, scale, np.float32), 0)
    with pytest.raises(PrunecError) as refused:
        weights.corrected_bias()
    assert refused.value.diagnostic.code == "PC485"


def test_planes_hold_an_image_and_what_lies_around_it() -> None:
    rng = np.random.default_rng(0)
    for border in ((0, 0, 0, 0), (1, 2, 3, 1), (0, 1, 0, 0)):
        image = rng.integers(0, 256, (2, 6, 5, 7)).astype(np.uint8)
        layout = Quads(2, 6, 5, 7, border)
        held = layout.pack(image, 200)
        np.testing.assert_array_equal(layout.unpack(held), image)
        assert (held == 200).sum() >= held.size - image.size
