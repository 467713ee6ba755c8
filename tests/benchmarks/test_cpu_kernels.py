"""The table of kernels: what its last lines say, and real rows of a small layer that are measured once."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

pytest.importorskip("tvm", reason="needs the [tvm] extra")

from benchmarks import cpu_kernels, cpu_layers
from benchmarks.cpu_kernels import Row, all_rows, verdicts
from prunec.backends.cpu.isa import host_isa
from tests.backends.kernel_support import needs_x86


def row(pattern: str, density: float, peak: float, ort: float, mflop: float = 100.0) -> Row:
    return Row("layer", pattern, density, 1, mflop, 1.0, 1.0, peak, 1.0, ort, 1.0, "A")


def test_the_verdict_counts_large_layers_that_reach_what_is_aimed_at() -> None:
    small = row("16×1", 0.3, 0.1, 1.0, mflop=9.0)
    found = verdicts([row("dense", 1.0, 0.86, 0.96), row("16×1", 0.3, 0.86, 2.0), row("16×1", 0.1, 0.84, 2.0), small])
    assert [line.split(":")[0] for line in found] == ["PASS", "SHORT", "PASS"]
    assert "16×1" in found[1] and "1 of 2 layers" in found[1] and "least 0.84" in found[1]
    assert verdicts([row("dense", 1.0, 0.86, 0.94)])[1].startswith("SHORT: dense, 1 thread, 0.95 of ONNX Runtime")


def test_work_is_that_of_the_dense_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_layers, "LAYERS", {"conv": (3, 5, 3, 7, 2), "product": (3, 5, 0, 7, 1)})
    assert cpu_layers.mflop("conv") == pytest.approx(2e-6 * 3 * 5 * 9 * 4 * 4)
    assert cpu_layers.mflop("product") == pytest.approx(2e-6 * 3 * 5 * 7)


@needs_x86
def test_rows_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (cpu_kernels, cpu_layers):
        monkeypatch.setattr(module, "LAYERS", {"small": (32, 32, 1, 6, 1)})
    arguments = argparse.Namespace(
        only="*", densities=[0.5], heights=[16, 4], threads=[1], runs=2, keep=tmp_path / "rows.json"
    )
    rows = list(all_rows(arguments, host_isa()))
    assert [(r.pattern, r.density) for r in rows] == [("16×1", 0.5), ("4×1", 0.5)]
    assert all(0 < r.peak < 1 and 0 < r.ceiling <= 1.05 and r.us > 0 and r.ort > 0 and 0 < r.rule <= 1 for r in rows)
    monkeypatch.setattr(cpu_kernels, "measured", lambda *_: pytest.fail("measured again"))
    assert list(all_rows(arguments, host_isa())) == rows
