"""`--precision int8` for ONNX Runtime: the package, what is said about it, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from tests.cli.helpers import prunec, refuses
from tests.cli.networks import residual

INT8 = ("--precision", "int8", "--samples", "10")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ir.save(residual([1, 3, 17, 15], 32), tmp_path / "model.onnx")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x=rng.standard_normal((40, 3, 17, 15)).astype(np.float32))
    return tmp_path


def test_what_is_pruned_is_shipped_in_8_bits(folder: Path) -> None:
    options = ("--flops", "0.6", "--calib", "data.npz", *INT8, "--no-measure")
    done = prunec("compile", "model.onnx", *options, "-o", "out", "--json", cwd=folder)
    assert done.code == 0, done.err
    found = done.json["verification"]["quantisation"]
    assert found["precision"] == "int8" and len(found["layers"]) >= 2 and 0 < found["error"] < 0.1
    assert sum(found["rules"].values()) == found["values"]
    assert done.json["bytes_after"] < 0.4 * done.json["bytes_before"]
    model = ir.load(folder / "out" / "model.onnx")
    assert [node.op_type for node in model.graph].count("QuantizeLinear") >= found["values"]
    assert "--precision int8" in done.json["command"]
    assert "In 8 bits" in (folder / "out" / "report.html").read_text()
    again = prunec("verify", "out", "--source", "model.onnx", cwd=folder)
    assert again.code == 0, again.err
    replay = ("--plan", "out/plan.json", "--calib", "data.npz", *INT8, "--no-measure", "--no-cache")
    done = prunec("compile", "model.onnx", *replay, "-o", "again", cwd=folder)
    assert done.code == 0, done.err
    assert (folder / "again" / "model.onnx").read_bytes() == (folder / "out" / "model.onnx").read_bytes()


def test_a_processor_without_vnni_gets_weights_that_do_not_overflow(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prunec.backends.cpu.isa.cpu_flags", lambda: frozenset({"avx2", "fma"}))
    options = ("--flops", "1", "--calib", "data.npz", *INT8, "--no-measure", "--no-compensate")
    done = prunec("compile", "model.onnx", *options, "-o", "out", "--json", cwd=folder)
    assert done.code == 0, done.err
    assert "PC484" in {warning["code"] for warning in done.json["warnings"]}
    found = done.json["verification"]["quantisation"]
    assert found["weight_bits"] == 7
    assert found["rounding"] == {"nearest": len(found["layers"])} and "error_swept" not in found


@pytest.mark.slow
def test_it_is_timed_beside_the_dense_model_in_8_bits(folder: Path) -> None:
    done = prunec("compile", "model.onnx", "--flops", "0.6", "--calib", "data.npz", *INT8, "--json", cwd=folder)
    assert done.code == 0, done.err
    assert set(done.json["measurements"]["contenders"]) == {
        "dense_onnxruntime", "pruned_onnxruntime", "dense_int8_onnxruntime"
    }  # fmt: skip
    assert "vs_dense_int8_onnxruntime" in done.json["measurements"]["speedup"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--flops", "0.5", "--precision", "fp16"), "PC440"),
        (("--speedup", "2", *INT8), "PC483"),
        (("--max-drop", "0.1", *INT8), "PC483"),
        (("--speedup", "2", "--precision", "mixed"), "PC440"),
        (("--sparsity", "0.5", "--target", "cpu", "--precision", "mixed"), "PC487"),
        (("--sparsity", "0.5", "--target", "cpu", "--precision", "fp16"), "PC440"),
        (("--sparsity", "0.5", "--target", "x86-avx2", *INT8), "PC440"),
    ],
)
def test_what_cannot_be_combined_is_refused(folder: Path, options: tuple[str, ...], code: str) -> None:
    done = prunec("compile", "model.onnx", *options, "-o", "out", cwd=folder)
    refuses(done, code)
    assert "--precision" in done.err and not (folder / "out").exists()


@pytest.mark.slow
def test_zeros_and_integers_are_found_together_and_proved_in_what_is_shipped(folder: Path) -> None:
    options = ("--pattern", "block:4x4", "--sparsity", "0.5", "--calib", "data.npz", *INT8, "--no-measure")
    done = prunec("compile", "model.onnx", *options, "-o", "out", "--json", cwd=folder)
    assert done.code == 0, done.err
    found = done.json["verification"]
    assert found["patterns"]["passed"] and found["patterns"]["layers"]
    own = found["quantisation"]
    assert sum(own["rounding"].values()) == len(own["layers"]) and min(own["error_nearest"], own["error_swept"]) < 1
    is_swept = own["error_swept"] < own["error_nearest"]
    assert is_swept == (set(own["rounding"]) != {"nearest"})
    again = prunec("verify", "out", "--source", "model.onnx", cwd=folder)
    assert again.code == 0, again.err
    replay = ("--plan", "out/plan.json", "--calib", "data.npz", *INT8, "--no-measure", "--no-cache")
    done = prunec("compile", "model.onnx", *replay, "-o", "again", cwd=folder)
    assert done.code == 0, done.err
    assert (folder / "again" / "model.onnx").read_bytes() == (folder / "out" / "model.onnx").read_bytes()


def test_a_rounding_by_name_is_used_and_said(folder: Path) -> None:
    options = ("--flops", "0.6", "--calib", "data.npz", *INT8, "--no-measure", "--rounding", "adaround")
    done = prunec("compile", "model.onnx", *options, "-o", "out", "--json", cwd=folder)
    assert done.code == 0, done.err
    assert "--rounding adaround" in done.json["command"]
    assert set(done.json["verification"]["quantisation"]["rounding"]) <= {"adaround", "nearest", "nearest+bias"}
    replay = ("--plan", "out/plan.json", "--calib", "data.npz", *INT8, "--rounding", "adaround", "--no-measure")
    done = prunec("compile", "model.onnx", *replay, "--no-cache", "-o", "again", cwd=folder)
    assert done.code == 0, done.err
    assert (folder / "again" / "model.onnx").read_bytes() == (folder / "out" / "model.onnx").read_bytes()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--precision", "int8", "--rounding", "stochastic"), "PC203"),
        (("--rounding", "adaround"), "PC208"),
        (("--precision", "int8", "--rounding", "adaround", "--no-compensate"), "PC208"),
    ],
)
def test_a_rounding_that_cannot_be(folder: Path, options: tuple[str, ...], code: str) -> None:
    done = prunec("compile", "model.onnx", "--flops", "0.6", *options, "-o", "out", cwd=folder)
    refuses(done, code)
    assert ("--rounding" if code == "PC208" else "adaround") in done.err
    assert not (folder / "out").exists()
