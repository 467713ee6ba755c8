"""Other views of pictures, and whether a model minds those from the other side."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from prunec.graph import analyse
from prunec.passes.compensate.pairs import Kept
from prunec.recover.augment import augmented, mirrored
from prunec.recover.pictures import _enlarged, axes, viewed
from prunec.recover.teacher import sees_mirrored_alike

SUMS_COLUMNS = """
<ir_version: 8, opset_import: ["" : 17]>
sums (float[n, 3, 8, 8] x) => (float[n, 3, 8] y)
{ y = ReduceMean<axes = [3], keepdims = 0>(x) }
"""
SUMS_ROWS = SUMS_COLUMNS.replace("axes = [3]", "axes = [2]")


@pytest.mark.parametrize("shape", [(3, 16, 20), (16, 20, 3), (1, 7, 5), (3, 1, 9), (2, 1, 1)])
def test_views_keep_shape_range_and_type(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for seed in range(30):
        found = viewed(image, np.random.default_rng(seed), mirrors=True)
        assert found.shape == shape and found.dtype == np.float32
        assert found.min() >= image.min() - 1e-6 and found.max() <= image.max() + 1e-6


def test_an_enlarged_slope_has_a_fraction_of_the_steepness() -> None:
    slope = np.arange(64, dtype=np.float32).reshape(1, 1, 64)
    found = _enlarged(slope, 2, 10.0, 32.0)
    assert np.allclose(np.diff(found[0, 0]), 0.5, atol=1e-5)
    assert found[0, 0, 0] == pytest.approx(9.75) and found[0, 0, -1] == pytest.approx(10 + 63.5 / 2 - 0.5)


def test_the_whole_enlarged_is_itself() -> None:
    image = np.random.default_rng(0).standard_normal((3, 5, 6)).astype(np.float32)
    assert np.array_equal(_enlarged(image, 1, 0.0, 5.0), image)


def test_only_where_asked_from_the_other_side() -> None:
    slope = np.broadcast_to(np.arange(32, dtype=np.float32), (1, 1, 32, 32)).copy()
    rises = {
        mirrors: {
            bool(augmented({"x": slope}, np.random.default_rng(seed), mirrors=mirrors)["x"][0, 0, :, -4:].mean() > 16)
            for seed in range(20)
        }
        for mirrors in (False, True)
    }
    assert rises == {False: {True}, True: {True, False}}


def test_mirrored_along_the_columns_of_either_layout() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 5)).astype(np.float32)
    found = mirrored({"x": x})
    assert found is not None and np.array_equal(found["x"], x[..., ::-1])
    channels_last = x.transpose(0, 2, 3, 1)
    found = mirrored({"x": channels_last})
    assert found is not None and np.array_equal(found["x"], channels_last[:, :, ::-1])
    assert axes(channels_last[0]) == (0, 1)
    assert mirrored({"x": x, "ids": np.zeros((2, 5), np.int64)}) is None


@pytest.mark.parametrize(("text", "alike"), [(SUMS_COLUMNS, True), (SUMS_ROWS, False)])
def test_a_model_that_minds_is_not_shown_mirrored_images(text: str, alike: bool) -> None:
    model = ir.from_proto(onnx.parser.parse_model(text))
    feeds = {"x": np.random.default_rng(0).standard_normal((6, 3, 8, 8)).astype(np.float32)}
    analysis = analyse(model)
    kept = Kept(analysis, np.ones(analysis.channel_count, bool))
    assert sees_mirrored_alike(model, ["y"], kept, feeds, 1) is alike
