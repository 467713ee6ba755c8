"""Levels of layers in a plan: how zeros are spread, what is recorded, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import prunec
from prunec.api.opening import open_model
from prunec.diagnostics import PrunecError
from prunec.passes.sparsify.views import constants, prunable_layers
from prunec.plan.levels import ALLOCATIONS
from prunec.plan.plan import Plan
from tests.graph.builder import Builder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three hidden layers: one of few inputs, one behind weights that are nearly all zero, one as it comes."""
    b = Builder(0)
    x = b.relu(b.conv(b.input("x", [1, 8, 6, 6]), 32))
    weak = b.rng.standard_normal((32, 32, 3, 3)) * (b.rng.random((32, 32, 3, 3)) < 0.1)
    x = b.relu(b.op("Conv", [x, b.const(weak.astype(np.float32), "weak")], pads=[1, 1, 1, 1]))
    x = b.op("GlobalAveragePool", [b.relu(b.conv(x, 48))])
    b.output(b.gemm(b.reshape(x, [1, 48]), 10))
    path = tmp_path_factory.mktemp("allocation") / "model.onnx"
    ir.save(b.model(), path)
    return path


def mean_level(path: Path, plan: Plan) -> float:
    own = prunable_layers(open_model(path).canonical)
    free = [layer for layer in plan.layers if "stem" not in layer.why and "head" not in layer.why]
    sizes = [sum(array.size for array in constants(own[layer.node])) for layer in free]
    return sum(size * layer.level for size, layer in zip(sizes, free, strict=True)) / sum(sizes)


@pytest.mark.parametrize("allocation", ALLOCATIONS)
@pytest.mark.parametrize("pattern", ["unstructured", "block:4x1"])
def test_every_allocation_meets_the_mean_and_says_so(model: Path, pattern: str, allocation: str) -> None:
    made = prunec.plan(model, pattern=pattern, sparsity=0.6, allocation=allocation, samples=16).plan
    assert mean_level(model, made) == pytest.approx(0.6, abs=1e-5) and mean_level(model, made) >= 0.6 - 1e-9
    levels = {layer.level for layer in made.layers if layer.pattern != "dense"}
    if allocation == "uniform":
        assert levels == {0.6} and made.allocation is None
    else:
        assert len(levels) > 1 and (made.allocation, made.level) == (allocation, 0.6)
        assert all(allocation in layer.why for layer in made.layers if layer.pattern != "dense")


@pytest.mark.parametrize("allocation", ["lamp", "global", "loss"])
def test_zeros_go_where_there_are_some_already(model: Path, allocation: str) -> None:
    made = prunec.plan(model, pattern="unstructured", sparsity=0.6, allocation=allocation, samples=16).plan
    levels = {layer.tensor: layer.level for layer in made.layers if layer.pattern != "dense"}
    assert levels["weak"] == max(levels.values()) > 0.8


def test_the_package_has_those_zeros_and_the_plan_replays(model: Path, tmp_path: Path) -> None:
    own = {"pattern": "unstructured", "sparsity": 0.6, "allocation": "loss", "samples": 16, "measure": False}
    found = prunec.compile(model, output=tmp_path / "out", **own)
    assert found.verification is not None and found.verification.patterns is not None
    planned = {layer.node: layer.level for layer in found.plan.layers}
    for record in found.verification.patterns.layers:
        assert record.level == planned[record.layer] and record.zeros >= record.level - 1e-9
    again = prunec.compile(model, output=tmp_path / "two", plan=tmp_path / "out" / "plan.json", measure=False)
    assert again.manifest == found.manifest
    assert prunec.plan(model, **{k: v for k, v in own.items() if k != "measure"}).plan.layers == found.plan.layers


def test_two_of_four_leaves_layers_dense_where_less_is_wanted(model: Path) -> None:
    made = prunec.plan(model, pattern="2:4", sparsity=0.3, samples=16).plan
    by_pattern = {layer.tensor: layer for layer in made.layers}
    assert by_pattern["weak"].level == 0.5
    dense = [layer for layer in made.layers if layer.why == "loss: others can spare more"]
    assert dense and all(layer.pattern == "dense" for layer in dense)
    assert 0.3 <= mean_level(model, made) < 0.5 and made.level == 0.3
    assert {layer.level for layer in prunec.plan(model, pattern="2:4", samples=16).plan.layers} <= {0.0, 0.5}


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"pattern": "unstructured", "sparsity": 0.5, "allocation": "erks"}, "PC203"),
        ({"flops": 0.5, "allocation": "erk"}, "PC208"),
        ({"pattern": "2:4", "sparsity": 0.3, "allocation": "erk"}, "PC208"),
        ({"pattern": "2:4", "sparsity": 0.7}, "PC224"),
    ],
)
def test_what_is_refused(model: Path, options: dict[str, object], code: str) -> None:
    with pytest.raises(PrunecError) as caught:
        prunec.plan(model, samples=8, **options)  # type: ignore[arg-type]
    assert caught.value.diagnostic.code == code and caught.value.diagnostic.hint
