"""What needs an NVIDIA GPU: a package's own scripts, and Torch-TensorRT. Not executed where prunec is developed.

That TensorRT chooses sparse kernels, or that they are faster, is a result and no condition of passing.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import onnx_ir as ir
import pytest

from prunec.backends.tensorrt import environment
from prunec.diagnostics import PrunecError
from tests.cli.helpers import prunec
from tests.graph.builder import Builder

pytestmark = [pytest.mark.device, pytest.mark.slow]
FAST = ("--samples", "10", "--solver", "fast", "--no-cache", "--include", "*")
YES_OR_NO = (0, 1)
"""Sparse kernels were chosen and faster, or not."""


@pytest.fixture
def gpu() -> None:
    try:
        environment.check()
    except PrunecError as missing:
        pytest.skip(f"needs a GPU with TensorRT: {missing}")


@pytest.fixture
def cuda() -> None:
    torch = pytest.importorskip("torch", reason="needs the [torch] extra")
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU that PyTorch can use")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Products that PyTorch's sparse matrices hold too."""
    b = Builder(0)
    y = b.relu(b.linear(b.input("x", [64, 256]), 512))
    b.output(b.linear(b.relu(b.linear(y, 512)), 256))
    ir.save(b.model(), tmp_path / "model.onnx")
    return tmp_path


def package(folder: Path, target: str, *options: str) -> Path:
    done = prunec("compile", "model.onnx", "--target", target, *FAST, *options, "-o", "out", cwd=folder)
    assert done.code == 0, done.err
    return folder / "out" / target.partition("-2:4")[0].replace("-", "_")


def run(place: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode in YES_OR_NO and "Traceback" not in done.stderr, done.stderr


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_scripts_of_a_package(folder: Path, precision: str) -> None:
    place = package(folder, "tensorrt-2:4", "--no-build", "--precision", precision)
    run(place, sys.executable, "build.py")
    run(place, sys.executable, "sparse_log.py", "sparse.log", "sparse.layers.json")
    run(place, sys.executable, "benchmark.py", "--rounds", "5")
    results = json.loads((place / "results.json").read_text())
    assert results[results["bounds"]] <= results["tolerance"]
    assert results["sparsity"]["eligible"] or results["sparsity"]["tactics"], "the log or the inspector is not read"


@pytest.mark.usefixtures("gpu")
def test_build_sh_with_trtexec(folder: Path) -> None:
    place = package(folder, "tensorrt-2:4", "--no-build")
    done = subprocess.run(["bash", "build.sh"], cwd=place, capture_output=True, text=True, check=False)
    if "trtexec is not here" in done.stderr:
        pytest.skip("needs trtexec")
    assert done.returncode in YES_OR_NO, done.stderr


@pytest.mark.usefixtures("gpu", "cuda")
def test_torch_tensorrt_compiles_compares_and_measures(folder: Path) -> None:
    if importlib.util.find_spec("torch_tensorrt") is None:
        pytest.skip("needs the [torch-tensorrt] extra")
    place = package(folder, "torch-tensorrt-2:4")
    record = json.loads((place.parent / "verification.json").read_text())["tensorrt"]
    assert record["executed"] and record["kernels"]["max_rel"] <= 0.03
    assert (place.parent / "measurements.json").exists()


@pytest.mark.usefixtures("cuda")
def test_semi_structured_linear_layers(folder: Path) -> None:
    place = package(folder, "torch-tensorrt-2:4", "--no-build")
    done = subprocess.run(
        [sys.executable, "semi_structured.py", "--rounds", "5"],
        cwd=place, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "no sparse kernels here" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode in YES_OR_NO, done.stderr
    results = json.loads((place / "semi_structured.json").read_text())
    assert results["replaced"] == 3 and results["left"] == [] and results["max_rel"] <= 0.03
