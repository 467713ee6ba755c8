"""`--target wasm` and `--target arm64` with `--precision int8`: packages, numbers, and processors that cannot."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("tvm", reason="needs the [tvm] extra")
pytest.importorskip("ziglang", reason="needs the [cross] extra")

import prunec as public
from prunec.api.target_list import backend_for
from prunec.backends.cpu.isa import ARM64, ARM64_DOT, RELAXED_WASM, WASM
from prunec.backends.cpu.quad_weights import packing
from prunec.backends.cross.cost_model import node_times
from prunec.backends.cross.lowered import lowered
from prunec.passes.canonicalise import canonicalise
from prunec.passes.quantise import unfitted
from prunec.passes.sparsify import LayerPattern
from prunec.patterns import parse
from tests.cli.helpers import prunec, refuses
from tests.cli.networks import residual

wasmtime = pytest.mark.skipif(importlib.util.find_spec("wasmtime") is None, reason="needs the [cross] extra")
emulated = pytest.mark.skipif(shutil.which("qemu-aarch64") is None, reason="needs qemu-user")
HALF = ("--precision", "int8", "--samples", "10", "--sparsity", "0.5", "--calib", "data.npz", "--no-compensate")
STEP = 1 / 255


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and its data."""
    folder = tmp_path_factory.mktemp("cross")
    ir.save(residual([1, 3, 9, 7], 16), folder / "model.onnx")
    images = np.random.default_rng(0).standard_normal((40, 3, 9, 7)).astype(np.float32)
    np.savez(folder / "data.npz", x=images)
    return folder


def compiled(folder: Path, out: str, *options: str) -> Path:
    done = prunec("compile", "model.onnx", *HALF, *options, "-o", out, "--json", cwd=folder)
    assert done.code == 0, done.err
    codes = {warning["code"] for warning in done.json["warnings"]}
    assert "PC486" not in codes
    found = json.loads((folder / out / "verification.json").read_text())
    assert found["lowering"]["passed"] and found["lowering"]["max_rel"] <= STEP
    assert len(found["quantisation"]["layers"]) == 4
    assert {layer["pattern"] for layer in found["patterns"]["layers"]} == {"block:4x4"}
    return folder / out


def same_as_onnxruntime(package: Path) -> None:
    x = np.load(package.parent / "data.npz")["x"][:1]
    own, wanted = (
        next(iter(public.load(package, runtime=name).run({"x": x}).values())) for name in ("prunec", "onnxruntime")
    )
    assert np.abs(own - wanted).max() <= np.abs(wanted).max() * STEP


@wasmtime
@pytest.mark.slow
@pytest.mark.parametrize("option", [(), ("--relaxed-simd",)], ids=["simd128", "relaxed"])
def test_a_module(folder: Path, option: tuple[str, ...]) -> None:
    out = compiled(folder, f"wasm{len(option)}", "--target", "wasm", "--no-measure", *option)
    same_as_onnxruntime(out)
    spec = json.loads((out / "wasm" / "model.json").read_text())
    assert spec["simd"] == ("relaxed" if option else "simd128")
    bits = json.loads((out / "verification.json").read_text())["quantisation"]["weight_bits"]
    assert bits == 7 or not option
    again = prunec("verify", out.name, "--source", "model.onnx", cwd=folder)
    assert again.code == 0, again.err


@wasmtime
@pytest.mark.slow
def test_a_module_is_timed_beside_the_dense_one_in_8_bits(folder: Path) -> None:
    out = compiled(folder, "timed", "--target", "wasm", "--include", "*")
    found = json.loads((out / "measurements.json").read_text())
    assert {"prunec", "prunec_dense"} <= found["contenders"].keys()
    assert [layer for layer in found["layers"] if layer["pattern"] == "block:4x4"]
    done = prunec("bench", out.name, "--source", "model.onnx", "--json", cwd=folder)
    assert done.code == 0, done.err
    assert {"prunec", "prunec_dense"} <= done.json["contenders"].keys()


@emulated
@pytest.mark.slow
def test_libraries(folder: Path) -> None:
    """Modelled and counted; a processor without the instruction gets an error that names it."""
    out = compiled(folder, "arm64", "--target", "arm64", "--include", "*")
    same_as_onnxruntime(out)
    layers = json.loads((out / "measurements.json").read_text())["modelled"]["layers"]
    assert layers and all(0 < layer["sparse_us"] <= layer["dense_us"] for layer in layers)
    assert all(0 < layer["sparse_instructions"] <= layer["dense_instructions"] for layer in layers)
    assert "asimddp" in (out / "README.txt").read_text()
    files = [str(out / "arm64" / name) for name in ("runner", "model.weights")]
    command = [shutil.which("qemu-aarch64") or "", *files, "1", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    older = {**os.environ, "QEMU_CPU": "cortex-a72"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=older)
    assert done.returncode != 0 and "asimddp" in done.stderr


def test_blocks_that_its_kernels_do_not_skip_are_refused(folder: Path) -> None:
    done = prunec("compile", "model.onnx", *HALF, "--target", "wasm", "--pattern", "block:8x1", "-o", "no", cwd=folder)
    refuses(done, "PC403")
    assert "block:4x4" in done.err


@pytest.mark.parametrize("target", ["wasm", "arm64"])
def test_layers_are_modelled_in_int8(target: str) -> None:
    """Fewer blocks cost less; nothing of it was calibrated, and the label says so."""
    model = canonicalise(residual([1, 32, 28, 28], 64))
    names = [node.name or "" for node in model.graph if node.op_type == "Conv"][1:3]
    backend = backend_for(target, "int8")
    assert backend is not None
    wanted = {name: LayerPattern(parse("block:4x4"), 0.25) for name in names}
    found = backend.times(model, wanted, 1, None, None)
    assert found.keys() == wanted.keys()
    for times in found.values():
        assert times.modelled_on is not None and "not calibrated" in times.modelled_on
        assert 1.2 < times.dense_us / times.sparse_us < 4


def test_dot_products_are_modelled_faster_than_float() -> None:
    """By less than the four times that the instruction multiplies more."""
    model = canonicalise(residual([1, 64, 28, 28], 128))
    name = [node.name for node in model.graph if node.op_type == "Conv"][1]
    taken = [
        node_times(lowered(each, isa, {})[1], isa)[name or ""]
        for each, isa in ((model, ARM64), (unfitted(model), ARM64_DOT))
    ]
    assert 2 < taken[0] / taken[1] < 4.5


def test_relaxed_products_are_for_weights_of_7_bits() -> None:
    """Whatever else would depend on the host, and depthwise layers, stay with products of 16 bits."""
    for least, largest, words in ((-64, 63, 1), (-65, 0, 2), (0, 64, 2)):
        matrix = np.array([least, largest], np.int8).reshape(1, 2, 1, 1)
        assert packing(RELAXED_WASM, matrix).words == words
        assert packing(WASM, matrix).words == packing(RELAXED_WASM, matrix, is_depthwise=True).words == 2


@pytest.mark.parametrize("target", ["wasm", "arm64", "onnx"])
def test_mixed_types_are_refused_where_layers_are_not_timed(folder: Path, target: str) -> None:
    asked = ("--flops", "0.5") if target == "onnx" else ("--pattern", "block:4x4", "--sparsity", "0.5")
    done = prunec("compile", "model.onnx", "--target", target, "--precision", "mixed", *asked, cwd=folder)
    refuses(done, "PC440")
    assert "--target cpu" in done.err
