"""Data types chosen by this machine's own times, on a real network: what is planned is what ships, runs and replays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tvm", reason="needs the [tvm] extra")

import prunec
import prunec.models as zoo
from prunec.api import precision_timing, zero_timing
from tests.backends.kernel_support import needs_x86

pytestmark = [needs_x86, pytest.mark.slow]


def test_a_real_network_in_both_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((zero_timing, "LEVELS"), (precision_timing, "FLOAT_LEVELS")):
        monkeypatch.setattr(module, name, (0.5, 0.875))  # every level is a compile of the network
    found = zoo.get("fashion-net")
    how: dict[str, Any] = {"target": "cpu", "precision": "mixed", "calib": found.calib, "samples": 64, "cache": False}
    done = prunec.compile(found.path, speedup=2, solver="fast", output=tmp_path / "out", **how)
    assert done.plan.time is not None and done.plan.time.share <= 0.5 and done.plan.precision == "mixed"
    types = {layer.node: layer.precision for layer in done.plan.layers}
    verified = json.loads((tmp_path / "out" / "verification.json").read_text())
    assert verified["lowering"]["passed"] and "int8" in types.values()
    assert set(verified["quantisation"]["layers"]) == {name for name, kind in types.items() if kind == "int8"}
    assert done.measurements is not None and done.measurements.speedup["vs_dense_onnxruntime"].median > 1.5
    explained = prunec.explain(tmp_path / "out")
    assert all(one.quantised is not None for one in explained.decisions)  # type: ignore[union-attr]
    prunec.compile(found.path, plan=tmp_path / "out" / "plan.json", measure=False, output=tmp_path / "again", **how)
    assert (tmp_path / "again" / "model.onnx").read_bytes() == (tmp_path / "out" / "model.onnx").read_bytes()
