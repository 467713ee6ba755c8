"""`--storage fp16`: weights rounded to half precision, half as large in their file, and float32 again when they run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("tvm", reason="needs the [tvm] extra")
pytest.importorskip("wasmtime", reason="needs the [cross] extra")

from prunec.backends.cpu.lower.program import Buffer
from prunec.backends.cpu.source import Weights
from prunec.backends.cross.half import rounded
from prunec.graph.shapes import constant
from tests.cli.helpers import prunec, refuses
from tests.cli.networks import residual

FAST = ("--sparsity", "0.5", "--samples", "10", "--solver", "fast", "--no-cache", "--no-compensate", "--no-measure")
HALVES = ("--storage", "fp16", "--json")
emulated = pytest.mark.skipif(shutil.which("qemu-aarch64") is None, reason="needs qemu-user")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose weights have halves of every kind among them: normal, subnormal, zero, and one beyond the range."""
    model = residual([1, 3, 9, 7], 32)
    first = next(node for node in model.graph if node.op_type == "Conv").inputs[1]
    assert first is not None and first.const_value is not None
    array = first.const_value.numpy().copy()
    array[:2] *= 1e-6
    array[2] = 0
    first.const_value = ir.Tensor(array, name=first.name)
    path = tmp_path_factory.mktemp("half")
    ir.save(model, path / "model.onnx")
    return path


def buffer(array: np.ndarray) -> Buffer:
    return Buffer("weights", array.dtype.name, array.size, array)


def test_what_is_exact_in_halves_comes_first_in_half_the_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    exact = rng.standard_normal(21).astype(np.float16).astype(np.float32)
    index, other, large = np.arange(5, dtype=np.int32), rng.standard_normal(9).astype(np.float32), np.float32([1e9])
    buffers = [buffer(a) for a in (index, exact, other, np.asarray(large), exact.copy())]
    plain, halves = Weights(buffers), Weights(buffers, in_halves=True)
    assert plain.halves == 0 and plain.stored_bytes == plain.bytes == halves.bytes
    assert halves.halves == 32 and halves.stored_bytes == halves.bytes - 64
    assert halves.offsets[buffers[1]] == halves.offsets[buffers[4]] == 64
    halves.write(tmp_path / "weights")
    data = (tmp_path / "weights").read_bytes()
    assert len(data) == halves.stored_bytes and data[:8] == b"PRUNECW1"
    assert np.array_equal(np.frombuffer(data, np.float16, 21, 64).astype(np.float32), exact)
    at = halves.offsets[buffers[2]] - 2 * halves.halves
    assert np.array_equal(np.frombuffer(data, np.float32, 9, at), other)


def test_only_tables_are_rounded(folder: Path) -> None:
    model = ir.load(folder / "model.onnx")
    found = rounded(model)
    for before, after in zip(model.graph, found.graph, strict=True):
        for index, value in enumerate(before.inputs):
            array, other = constant(value), constant(after.inputs[index])
            if array is None or other is None:
                continue
            is_table = before.op_type in ("Conv", "Gemm") and index == 1
            assert np.array_equal(other, array.astype(np.float16).astype(np.float32) if is_table else array)


@pytest.mark.parametrize("placement", ["beside", pytest.param("embedded", marks=pytest.mark.slow)])
def test_a_module_with_halves(folder: Path, placement: str) -> None:
    """It equals the rounded model, in wasmtime and Node, and says how far that is from model.onnx."""
    target = ("compile", "model.onnx", "--target", "wasm", "--weights", placement, *FAST)
    for name, options in (("plain", ("--json",)), ("halves", HALVES)):
        done = prunec(*target, *options, "-o", f"{name}-{placement}", cwd=folder)
        assert done.code == 0, done.err
    own, plain = (folder / f"{name}-{placement}" / "wasm" for name in ("halves", "plain"))
    specs = [json.loads((path / "model.json").read_text()) for path in (own, plain)]
    assert specs[0]["storage"] == "fp16" and specs[0]["weights_bytes"] < 0.7 * specs[1]["weights_bytes"]
    file = "model.weights" if placement == "beside" else "model.wasm"
    assert (own / file).stat().st_size < (plain / file).stat().st_size - 0.25 * specs[1]["weights_bytes"]
    lowering = done.json["verification"]["lowering"]
    assert lowering["passed"] and lowering["max_rel"] <= 1e-5 and "--storage fp16" in done.json["command"]
    said = next(warning["message"] for warning in done.json["warnings"] if warning["code"] == "PC471")
    assert "rounded to half precision" in said
    assert prunec("verify", own.parent, cwd=folder).code == 0


@emulated
@pytest.mark.slow
def test_libraries_with_halves(folder: Path) -> None:
    done = prunec("compile", "model.onnx", "--target", "arm64", *FAST, *HALVES, "-o", "arm", cwd=folder)
    assert done.code == 0, done.err
    assert done.json["verification"]["lowering"]["max_rel"] <= 1e-5
    spec = json.loads((folder / "arm" / "arm64" / "model.json").read_text())
    assert (folder / "arm" / "arm64" / "model.weights").stat().st_size == spec["weights_bytes"]
    assert prunec("verify", "arm", cwd=folder).code == 0


def test_refusals(folder: Path, tmp_path: Path) -> None:
    model = folder / "model.onnx"
    for target, budget in (("onnx", "--flops"), ("cpu", "--sparsity")):
        command = ("compile", model, "--target", target, budget, "0.5", "--storage", "fp16")
        refuses(prunec(*command, cwd=tmp_path), "PC440")
    refuses(prunec("compile", model, "--target", "wasm", *FAST, "--storage", "fp8", cwd=tmp_path), "PC440")
