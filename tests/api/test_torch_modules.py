"""The commands on a torch module: what they give is what they give for its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import prunec

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
nn = torch.nn
pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_registry")]
EXAMPLE = torch.zeros(2, 3, 12, 12)


def net() -> Any:
    torch.manual_seed(0)
    first = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*first, nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 5))


def data(count: int = 40) -> Any:
    return torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def test_inspect_and_explain() -> None:
    found = prunec.inspect(net(), example_inputs=EXAMPLE)
    assert found.model == "Sequential.onnx"
    assert [group.size for group in found.groups if group.pinned is None] == [16, 16]
    assert any(m.tensor == "0.weight" and m.axis == 0 for m in found.groups[0].members)
    told = prunec.explain(net(), "0.weight", example_inputs=EXAMPLE)
    assert "16 channels" in told.verdict[0]


def test_compile_and_replay(tmp_path: Path) -> None:
    calib = [(batch, torch.zeros(4)) for batch in data().split(4)]  # images and labels, as a loader gives them
    dynamic = ({0: torch.export.Dim("n")},)
    options: dict[str, Any] = {"example_inputs": EXAMPLE, "dynamic_shapes": dynamic, "calib": calib}
    compiled = prunec.compile(net(), flops=0.5, output=tmp_path / "out", measure=True, **options)
    assert compiled.verification.exactness.passed and compiled.verification.quality.data == "calibration"
    assert compiled.measurements is not None and compiled.bytes_after < compiled.bytes_before
    assert compiled.manifest.source.name == "Sequential.onnx"
    made = prunec.plan(net(), flops=0.5, **options)
    assert made.plan.to_bytes() == compiled.plan.to_bytes()
    made.plan.save(tmp_path / "plan.json")
    prunec.compile(net(), plan=tmp_path / "plan.json", output=tmp_path / "again", measure=False, **options)
    for name in ("model.onnx", "plan.json", "manifest.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes(), name


def test_a_file_takes_no_example_inputs(tmp_path: Path) -> None:
    with pytest.raises(prunec.PrunecError, match="PC034"):
        prunec.inspect(tmp_path / "m.onnx", example_inputs=EXAMPLE)
    with pytest.raises(prunec.PrunecError, match="PC034"):
        prunec.inspect(3)


def test_samples_may_be_tensors_dicts_or_one_array() -> None:
    plans = [
        prunec.plan(net(), sparsity=0.3, example_inputs=EXAMPLE, calib=calib, samples=40).plan.to_bytes()
        for calib in (data(), [{"input": row} for row in data()], iter(data().numpy()))
    ]
    assert len(set(plans)) == 1
    with pytest.raises(prunec.PrunecError, match="PC311"):
        prunec.plan(net(), sparsity=0.3, example_inputs=EXAMPLE, calib=np.float32)
