"""Tables about TensorRT packages: rows of a small model, and what other tools are taken to say."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import onnx_ir as ir
import pytest

from benchmarks import tensorrt_packages, tensorrt_precision, tensorrt_tools
from benchmarks.tensorrt_models import ELIGIBLE, EXPECTED, WORTHWHILE, opened, package
from prunec.diagnostics import PrunecError
from tests.graph.builder import Builder

SAID = """\
[V] Skipping head.w since the length of axis 0 (7 in [7, 4]) is not a multiple of 4.
[W] Skipping tensor: q.int8 due to unsupported type: DataType.INT8
[W] Found non-sparse tensor: conv.w
[I] Found sparse tensor: conv.w.fp16
"""


@pytest.fixture
def graphs(tmp_path: Path) -> Path:
    """`wide` has a layer that TensorRT is expected to run sparse, `narrow` none."""
    for name, channels in (("wide", 128), ("narrow", 16)):
        b = Builder(0)
        y = b.relu(b.conv(b.relu(b.conv(b.input("x", [2, 4, 8, 8]), 32)), channels))
        b.output(b.conv(b.relu(b.conv(y, channels)), 8))
        ir.save(b.model(), tmp_path / f"{name}.onnx")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "layers", "taken", "planned"),
    [
        ("wide", EXPECTED, "worthwhile", 2), ("wide", ELIGIBLE, "all eligible", 4),
        ("narrow", EXPECTED, "all eligible", 4), ("narrow", WORTHWHILE, None, 0),
    ],
)  # fmt: skip
def test_which_layers_are_taken(
    graphs: Path, tmp_path: Path, name: str, layers: str, taken: str | None, planned: int
) -> None:
    with opened(name, graphs) as source:
        if taken is None:
            with pytest.raises(PrunecError, match="PC225"):
                package(source, tmp_path / "out", solver="magnitude", samples=2, layers=layers)
            return
        found, which = package(source, tmp_path / "out", solver="magnitude", samples=2, layers=layers)
    assert found.verification is not None and found.verification.tensorrt is not None
    assert which == taken and len(found.verification.tensorrt.planned_sparse) == planned


def test_a_row_says_what_the_package_holds_and_what_a_tool_said_of_it(graphs: Path, tmp_path: Path) -> None:
    tool = tmp_path / "polygraphy"
    tool.write_text(f"#!{sys.executable}\nprint('[I] Found sparse tensor: nothing')\n")
    tool.chmod(0o755)
    arguments = SimpleNamespace(
        graphs=graphs, solver="magnitude", samples=2, rtx=None, polygraphy=str(tool), no_quality=False, precision="fp16"
    )
    (row,) = tensorrt_packages.one("wide", EXPECTED, arguments)  # type: ignore[arg-type]
    assert (row.layers, row.eligible, row.worthwhile, row.planned, row.proved) == (4, 4, 2, 2, 2)
    assert row.polygraphy == "0 of 2; 2 not looked at (FLOAT16, rank 4)" and row.metric is None
    assert row.left_dense == "1 stem; 1 head"


@pytest.mark.parametrize(
    ("command", "given"), [(tensorrt_packages, "--precision"), (tensorrt_precision, "--precisions")]
)
def test_a_command_goes_on_behind_a_refusal_and_fails(
    graphs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: ModuleType, given: str
) -> None:
    table, kept = graphs / "table.md", graphs / "rows.json"
    options = ["--graphs", str(graphs), "--layers", WORTHWHILE, "--solver", "magnitude", "--samples", "2"]
    own = ["narrow", "wide", *options, given, "fp16", "--keep", str(kept), "--markdown", str(table)]
    monkeypatch.setattr(sys, "argv", ["command", *own])
    assert command.main() == 1
    said = capsys.readouterr().out
    assert "narrow, worthwhile" in said and "refused: [PC225]" in said
    assert len(table.read_text().splitlines()) == 3 and "| wide |" in table.read_text()
    assert len(json.loads(kept.read_text())) == 1


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("conv.w.fp16", "sparse"), ("conv.w", "called dense"), ("q.int8", "skipped for their type"),
        ("head.w", "skipped for an axis that is not the reduced one"), ("other", "not looked at (FLOAT, rank 2)"),
    ],
)  # fmt: skip
def test_polygraphy_says_what_it_did_with_a_weight(name: str, what: str) -> None:
    value = ir.Value(name=name, shape=ir.Shape([7, 4]), type=ir.TensorType(ir.DataType.FLOAT))
    assert tensorrt_tools.verdict(SAID, name, value) == what
