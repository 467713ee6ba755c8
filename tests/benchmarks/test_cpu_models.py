"""Compiled models beside other runtimes, without any of them: failures, and a small model through the command."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from benchmarks import environments, runtimes
from benchmarks.runtimes import RUNTIMES, able, installed
from benchmarks.stopwatch import stopwatch
from prunec.measure.contender import Contender
from tests.backends.kernel_support import needs_x86
from tests.graph.builder import Builder


def test_every_runtime_pins_what_it_installs_and_has_a_runner() -> None:
    for runtime in RUNTIMES.values():
        assert all("==" in requirement for requirement in runtime.requirements)
        assert any(requirement.endswith(f"=={runtime.version}") for requirement in runtime.requirements)
        runner = getattr(runtimes, runtime.runner)
        assert list(inspect.signature(runner.load).parameters) == ["self", "model", "feeds", "threads"]


def test_what_cannot_be_installed_or_cannot_run_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(name: str, *_: object, **__: object) -> Path:
        raise environments.NoEnvironment(f"no {name}")

    monkeypatch.setattr(environments, "python_of", refuse)
    assert installed(tmp_path, ["openvino"], print) == ([], {"openvino": "no openvino"})
    model = tmp_path / "model"
    model.write_text("1")
    good, bad = (Contender(kind, model, f"tests.measure.fake_runners:{kind}") for kind in ("Sleeper", "Refuses"))
    found, failing = able([bad, good], {"x": np.ones(1, np.float32)}, 1)
    assert found == [good] and "no such operator: Frobnicate" in failing["Refuses"]


def test_a_stopwatch_counts_what_is_called_through_a_module() -> None:
    with stopwatch({"tables": (f"{__name__}:slow",), "none": ()}) as seconds:
        slow()
    assert seconds["tables"] > 0 and seconds["none"] == 0
    with pytest.raises(AttributeError), stopwatch({"gone": (f"{__name__}:gone",)}):
        pass


def slow() -> float:
    return float(np.linalg.norm(np.ones((300, 300)) @ np.ones((300, 300))))


@needs_x86
@pytest.mark.slow
def test_rows_of_a_small_model_and_of_one_that_cannot_be_compiled(tmp_path: Path) -> None:
    pytest.importorskip("tvm", reason="needs the [tvm] extra")
    from benchmarks.cpu_models import all_rows, tables

    b = Builder(0)
    x = b.input("x", ["n", 3, 9, 9])
    y = b.op("GlobalAveragePool", [b.relu(b.conv(b.relu(b.conv(x, 32)), 32))])
    b.output(b.gemm(b.op("Flatten", [y]), 10))
    ir.save(b.model(), tmp_path / "small.onnx")
    text = '<ir_version: 9, opset_import: ["" : 17]> m (float[n, t, 4] z) => (float[n, t, 4] y) { y = Relu(z) }'
    ir.save(ir.from_onnx_text(text), tmp_path / "free.onnx")
    arguments = argparse.Namespace(
        models=[str(tmp_path / "small.onnx"), str(tmp_path / "free.onnx")], densities=[1.0, 0.5], threads=[1],
        input_shape=[], beside=[], blocks=6, pattern="block:16x1", tune="quick", keep=tmp_path / "rows.json",
    )  # fmt: skip
    dense, half, *refused = rows = list(all_rows(arguments))
    assert dense.over_onnxruntime == dense.over_onnxruntime_dense and dense.over_own_dense is None
    assert None not in (half.over_onnxruntime, half.over_onnxruntime_dense, half.over_own_dense, half.size_mib)
    assert float(half.size_mib.split(" / ")[0]) > 0 and half.error and float(half.error) <= 1e-5
    assert half.profile is not None and "LLVM 0.0" not in half.profile and "tuning" in half.profile
    assert [row.note.startswith("not compiled: [PC") for row in refused] == [True, True]
    assert tables(rows).count("\n") == 13
    arguments.models = arguments.models[:1]
    assert list(all_rows(arguments)) == [dense, half]  # from the file: nothing takes the same time twice
