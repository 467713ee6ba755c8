"""Padding, resizing, tiling, indices: against ONNX Runtime, many operators in one graph."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto

pytest.importorskip("tvm", reason="needs the [tvm] extra")

from prunec.backends.cpu.isa import AVX512
from prunec.backends.cpu.lower.lowering import lower
from prunec.backends.cpu.lower.prepare import prepare
from prunec.diagnostics import PrunecError
from tests.backends.kernel_support import needs_x86
from tests.backends.program_support import assert_equal, compiled
from tests.graph.builder import Builder

pytestmark = needs_x86
RNG = np.random.default_rng(0)


def ints(b: Builder, *values: int) -> str:
    return b.const(np.array(values, np.int64))


def number(b: Builder, value: float) -> str:
    return b.const(np.array(value, np.float32))


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def refusal(model: ir.Model) -> str:
    """Why the only node without generated code has none."""
    ready = prepare(model)
    _, (found,) = lower(list(ready.graph), list(ready.graph.inputs), list(ready.graph.outputs), AVX512)
    return found.reason


def test_padding_of_all_kinds(tmp_path: Path) -> None:
    b = Builder(0, 19)
    image = b.relu(b.conv(b.input("x", [2, 3, 7, 5]), 9))
    rows = b.input("rows", [3, 6])
    for mode in ("constant", "reflect", "edge", "wrap"):
        b.output(b.op("Pad", [image, ints(b, 0, 0, 2, 3, 0, 0, 1, 4)], mode=mode))
        b.output(b.op("Pad", [rows, ints(b, 0, 2, 1, 5)], mode=mode))
        b.output(b.op("Pad", [image, ints(b, 0, 2, 1, 0), "", ints(b, 1, -1)], mode=mode))
        cut = b.op("Pad", [image, ints(b, 0, -2, 1, -1, 1, 3, -2, 2)], mode="constant" if mode == "reflect" else mode)
        b.output(cut, b.relu(b.op("Pad", [rows, ints(b, 0, 0, 0, 0)], mode=mode)))
    b.output(b.op("Pad", [image, ints(b, 0, 1, 2, 0, 0, 0, 0, 1), number(b, -np.inf)]))
    inside = b.op("ReduceMin", [rows])
    b.output(b.op("Pad", [rows, ints(b, 1, 0, 0, 2), inside]))
    b.output(b.conv(b.op("Pad", [image, ints(b, 0, 0, 1, 1, 0, 0, 1, 1)], mode="reflect"), 4))
    tokens = b.input("tokens", [2, 3], TensorProto.INT64)
    b.output(b.op("Pad", [tokens, ints(b, 0, 1, 0, 2), ints(b, -7)]), dtype=TensorProto.INT64)
    model = b.model()
    feeds = {"x": normal(2, 3, 7, 5), "rows": normal(3, 6), "tokens": RNG.integers(0, 9, (2, 3))}
    with compiled(model, tmp_path) as package:
        assert_equal(model, package, feeds)
        assert_equal(model, package, {**feeds, "x": normal(2, 3, 7, 5)})


def test_padding_that_is_refused() -> None:
    """Mirrored beyond what there is, and by amounts that nobody knows before it runs."""
    b = Builder(0, 19)
    x = b.input("x", [2, 4])
    b.output(b.op("Pad", [x, ints(b, 0, 4, 0, 0)], mode="reflect"))
    assert "more than the tensor has" in refusal(b.model())
    b = Builder(0, 19)
    b.output(b.op("Pad", [b.input("x", [2, 4]), b.input("pads", [4], TensorProto.INT64)]))
    assert "not known before it runs" in refusal(ir.from_proto(b.unchecked()))


SIZES = [((5, 7), (9, 13)), ((6, 8), (3, 5)), ((4, 3), (8, 1))]
COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric")


def test_resizes(tmp_path: Path) -> None:
    """Every mode and convention, up and down, by sizes and by scales, channels last and first."""
    b = Builder(0, 19)
    images = {}
    for (before, after), how in itertools.product(SIZES, COORDINATES):
        name = f"x{before[0]}x{before[1]}"
        if name not in images:
            x = b.input(name, [2, 3, *before])
            images[name] = b.relu(b.conv(x, 19)), x
        wide, plain = images[name]
        size = ints(b, *after)
        common = {"coordinate_transformation_mode": how, "axes": [2, 3]}
        b.output(b.op("Resize", [wide, "", "", size], mode="linear", **common))
        b.output(b.op("Resize", [plain, "", "", size], mode="cubic", cubic_coeff_a=-0.5, **common))
        b.output(b.op("Resize", [plain, "", "", size], mode="cubic", exclude_outside=1, **common))
        has_nearest = how != "half_pixel_symmetric"  # refused
        for nearest in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil") if has_nearest else ():
            b.output(b.op("Resize", [wide, "", "", size], nearest_mode=nearest, **common))
        scales = b.const(np.array([1, 1, after[0] / before[0] * 1.03, after[1] / before[1] * 1.01], np.float32))
        b.output(b.op("Resize", [wide, "", scales], mode="linear", coordinate_transformation_mode=how))
        if has_nearest:
            b.output(b.op("Resize", [wide, "", scales], coordinate_transformation_mode=how))
    region = b.const(np.array([0.1, 0.2, 0.8, 1.0], np.float32))
    crop = {"coordinate_transformation_mode": "tf_crop_and_resize", "axes": [2, 3]}
    b.output(b.op("Resize", [images["x5x7"][0], region, "", ints(b, 4, 9)], mode="linear", **crop))
    kept = {"mode": "linear", "axes": [2, 3], "keep_aspect_ratio_policy": "not_larger"}
    b.output(b.op("Resize", [images["x6x8"][0], "", "", ints(b, 12, 12)], **kept))
    line, volume = b.input("line", [2, 5, 9]), b.input("volume", [1, 4, 3, 5, 2])
    b.output(b.op("Resize", [line, "", "", ints(b, 2, 5, 14)], mode="linear"))
    b.output(b.op("Resize", [line, "", "", ints(b, 2, 8, 9)], mode="linear"))
    b.output(b.op("Resize", [volume, "", "", ints(b, 1, 4, 5, 7, 3)], mode="linear"))
    model = b.model()
    feeds = {info.name: normal(*b.shapes[info.name]) for info in b.inputs}
    with compiled(model, tmp_path) as package:
        assert_equal(model, package, feeds)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"antialias": 1, "mode": "linear"}, "antialiasing"),
        ({"axes": [0]}, "batch"),
        ({"coordinate_transformation_mode": "half_pixel_symmetric"}, "half_pixel_symmetric"),
    ],
)
def test_resizes_that_are_refused(attributes: dict[str, object], reason: str) -> None:
    b = Builder(0, 19)
    x = b.input("x", [2, 3, 4, 4])
    sizes = ints(b, 4) if "axes" in attributes else ints(b, 2, 3, 2, 2)
    b.output(b.op("Resize", [x, "", "", sizes], **attributes))
    assert reason in refusal(b.model())


def test_indices(tmp_path: Path) -> None:
    """Gather and Scatter in all forms, TopK, ArgMax, running sums; negative indices among them."""
    b = Builder(0, 18)
    x, small = b.input("x", [4, 5, 7]), b.input("small", [3, 5, 7])
    i = b.input("i", [3, 2], TensorProto.INT64)
    b.output(b.op("GatherND", [x, i]), b.op("GatherND", [x, b.op("Unsqueeze", [i, ints(b, 0)])]))
    b.output(b.op("GatherND", [small, i], batch_dims=1))
    updates = b.input("updates", [3, 7])
    for how in ("none", "add", "mul", "max", "min"):
        b.output(b.op("ScatterND", [x, i, updates], reduction=how))
    e = b.input("e", [4, 3, 7], TensorProto.INT64)
    first = b.op("Slice", [e, ints(b, 0), ints(b, 2), ints(b, 2)])
    b.output(b.op("GatherElements", [x, e], axis=1), b.op("GatherElements", [x, first], axis=1))
    spread = b.op("GatherElements", [x, e], axis=1)
    for how in ("add", "max"):
        b.output(b.op("ScatterElements", [x, e, spread], axis=1, reduction=how))
    ends = ints(b, 0), ints(b, 1), ints(b, 1)
    one = b.op("Slice", [e, *ends]), b.op("Slice", [spread, *ends])
    b.output(b.op("ScatterElements", [x, *one], axis=1))
    for axis in (0, 1, -1):
        for largest in (0, 1):
            values, places = b.op("TopK", [x, ints(b, 3)], 2, axis=axis, largest=largest)
            b.output(values)
            b.output(places, dtype=TensorProto.INT64)
        b.output(b.op("ArgMax", [x], axis=axis), b.op("ArgMin", [x], axis=axis, keepdims=0), dtype=TensorProto.INT64)
        b.output(b.op("ArgMax", [i], axis=0, select_last_index=1), dtype=TensorProto.INT64)
        b.output(b.op("CumSum", [x, ints(b, axis)], exclusive=int(axis == 0), reverse=int(axis == 1)))
    b.output(b.op("CumSum", [i, ints(b, 0)]), dtype=TensorProto.INT64)
    whole, _ = b.op("TopK", [x, ints(b, 7)], 2)
    b.output(whole)
    for axis in (-1, 0, 1):
        b.output(b.op("OneHot", [i, ints(b, 5), b.const(np.array([-1, 2], np.float32))], axis=axis))
    b.output(b.op("Trilu", [x]), b.op("Trilu", [x, b.const(np.array(-1, np.int64))], upper=0))
    b.output(b.op("Tile", [x, ints(b, 2, 1, 3)]))
    b.output(b.op("SpaceToDepth", [b.op("Reshape", [x, ints(b, 1, 1, 10, 14)])], blocksize=2))
    model = b.model()
    feeds = {
        "x": normal(4, 5, 7), "small": normal(3, 5, 7), "i": RNG.integers(-3, 3, (3, 2)), "updates": normal(3, 7),
        "e": RNG.integers(-5, 5, (4, 3, 7)),
    }  # fmt: skip
    with compiled(model, tmp_path) as package:
        assert_equal(model, package, feeds)
        for name, wrong in (("i", 4), ("e", -6)):
            bad = {**feeds, name: np.full_like(feeds[name], wrong)}
            with pytest.raises(PrunecError, match=r"PC622.*outside a table"):
                package.run(bad)


def test_ties_and_many_elements_are_ranked_as_onnx_runtime_does(tmp_path: Path) -> None:
    b = Builder(0, 18)
    x = b.input("x", [3, 517])
    for count in (1, 64, 517):
        values, places = b.op("TopK", [x, ints(b, count)], 2)
        b.output(values)
        b.output(places, dtype=TensorProto.INT64)
    model = b.model()
    with compiled(model, tmp_path) as package:
        assert_equal(model, package, {"x": RNG.integers(0, 40, (3, 517)).astype(np.float32)})
