"""The table of what has generated code: verdicts, and models that take more time or memory than they may."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("tvm", reason="needs the [tvm] extra")

from benchmarks.cpu_coverage import bounded, named
from tests.graph.builder import Builder


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    b = Builder(0)
    x = b.relu(b.conv(b.input("x", [1, 3, 9, 9]), 17))
    b.output(b.relu(b.op("LpPool", [x], kernel_shape=[2, 2])))
    ir.save(b.model(), tmp_path / "pooled.onnx")
    return tmp_path / "pooled.onnx"


def test_verdicts_and_limits(graph: Path) -> None:
    row = bounded(str(graph), 64.0, 300.0)
    assert (row.model, row.verdict, row.parts) == ("pooled", "in parts", 3)
    assert row.missing == "1× LpPool: no generated code for this operator"
    assert "took more than 0 s" in bounded(str(graph), 64.0, 0.0).missing


def test_too_little_memory_is_a_row(tmp_path: Path) -> None:
    b = Builder(0)
    b.output(b.op("MatMul", [b.input("x", [1, 4096]), b.const(np.zeros((4096, 4096), np.float32))]))
    ir.save(b.model(), tmp_path / "wide.onnx")
    assert bounded(str(tmp_path / "wide.onnx"), 0.001, 300.0).verdict == "not known"


def test_folders_are_their_graphs(graph: Path) -> None:
    assert named([str(graph.parent), "crepe-tiny"]) == [str(graph), "crepe-tiny"]
    assert "silero-vad" in named(["zoo"])
