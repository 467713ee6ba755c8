"""float64 decides where a compiled model and ONNX Runtime disagree, and lets nothing pass that is off itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from prunec.backends.cpu import referee
from prunec.backends.cpu.checking import compare_model
from prunec.diagnostics import GateError
from prunec.report.html import render_report
from tests.report.samples import sample

Outputs = dict[str, np.ndarray]
LARGE = 4096.0
"""Added and taken away again it leaves 11 bits of a number near 1: ONNX Runtime's float32 is off by 1e-4."""
TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
graph (float[N, 4] x, float[1] large) => (float[N, 4] y, int64[N] best) {
  sum = Add(x, large)
  y = Sub(sum, large)
  best = ArgMax <axis = 1, keepdims = 0> (y)
}
"""
WHOLE = np.array([[0.25, -0.5, 1.0, 0.125]], np.float32)
"""Survives the sum."""
ROW = np.array([[0.3, 0.9, -0.7, 0.1]], np.float32)
TIE = np.array([[0.9, -0.7, 0.9000001, 0.3]], np.float32)
"""To ONNX Runtime both are the largest, and it takes the first."""


@dataclass(frozen=True)
class Exact:
    """A compiled model that answers what is true, and `off` times its range more."""

    off: float = 0.0
    change: Callable[[Outputs], Outputs] = dict

    def run(self, feeds: Mapping[str, np.ndarray]) -> Outputs:
        x = feeds["x"]
        y = x + np.float32(self.off) * np.abs(x).max()
        return self.change({"y": y.astype(np.float32), "best": x.argmax(axis=1)})


def model() -> ir.Model:
    return ir.serde.deserialize_model(onnx.parser.parse_model(TEXT))


def feeds(*rows: np.ndarray) -> list[Outputs]:
    return [{"x": row, "large": np.array([LARGE], np.float32)} for row in rows]


def test_float64_is_not_asked_where_onnxruntime_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(referee, "MOST_MACS", -1.0)
    record = compare_model(model(), Exact(), feeds(WHOLE), 1)
    assert (record.max_rel, record.decided_in, record.passed) == (0.0, "float32", True)
    assert record.float64_max_rel is None and record.reference_float64_max_rel is None


def test_what_is_true_passes_although_onnxruntime_disagrees() -> None:
    record = compare_model(model(), Exact(), feeds(ROW), 1)
    assert (record.decided_in, record.passed, record.tolerance) == ("float64", True, 1e-5)
    assert record.max_rel == record.float64_max_rel == 0.0
    assert record.float32_max_rel is not None and record.float32_max_rel > 5e-5
    assert record.reference_float64_max_rel == pytest.approx(record.float32_max_rel, rel=1e-3)


def test_integers_that_differ_from_onnxruntimes_are_no_distance() -> None:
    record = compare_model(model(), Exact(), feeds(TIE), 1)
    assert record.decided_in == "float64" and record.passed
    assert record.float32_max_rel is None and record.reference_float64_max_rel is None
    assert record.to_json()["max_rel"] == 0.0


def test_what_is_further_from_float64_than_the_tolerance_is_refused() -> None:
    with pytest.raises(GateError, match=r"PC526.*2\.0e-05.* float64; .* by 2\.4e-04, which is 2\.2e-04 off"):
        compare_model(model(), Exact(off=2e-5), feeds(ROW), 1)
    assert compare_model(model(), Exact(off=9e-6), feeds(ROW), 1).passed


def test_once_float64_decides_it_does_so_for_every_sample() -> None:
    """The second sample is as ONNX Runtime has it, and wrong: one reference decides, not for each the kinder one."""

    def wrong(found: Outputs) -> Outputs:
        return (
            {**found, "y": (found["y"] + np.float32(LARGE)) - np.float32(LARGE)} if found["y"][0, 0] == 0.6 else found
        )

    rows = feeds(ROW, np.array([[0.6, 0.9, -0.7, 0.1]], np.float32))
    with pytest.raises(GateError, match="PC526"):
        compare_model(model(), Exact(change=wrong), rows, 1)


def test_without_a_verdict_it_is_refused_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(referee, "MOST_MACS", -1.0)
    with pytest.raises(GateError, match=r"PC526.*not decided in float64: one run costs"):
        compare_model(model(), Exact(), feeds(ROW), 1)


def test_a_wrong_shape_and_nan_are_refused() -> None:
    for change in (lambda y: y[:, :3], lambda y: np.full_like(y, np.nan)):
        with pytest.raises(GateError, match="PC526"):
            compare_model(model(), Exact(change=lambda found, c=change: {**found, "y": c(found["y"])}), feeds(ROW), 1)


def test_the_report_has_both_references() -> None:
    data = sample(3)
    record = compare_model(model(), Exact(), feeds(ROW), 1)
    page = render_report(dataclasses.replace(data, verification={**data.verification, "lowering": record.to_json()}))
    assert "against the same graph in float64, of which ONNX Runtime is" in page
    assert "against the same graph in float64" not in render_report(data)
