"""Data and models that are hard on solvers, from the command line: a pattern with a word about it, or a refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from prunec.backends.onnx.session import make_session, run
from prunec.frontend.onnx import load
from tests.cli.helpers import prunec, refuses
from tests.graph.builder import Builder

SOLVERS = ("fast", "balanced", "best", "magnitude", "wanda", "dsnot", "sparsegpt", "admm", "exactobs", "udfc")
INPUTS = 24


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two products and a small convolution behind 24 inputs."""
    b = Builder(seed=1)
    x = b.input("x", [1, INPUTS])
    y = b.relu(b.gemm(b.relu(b.gemm(x, 32)), 36))
    y = b.relu(b.conv(b.reshape(y, [1, 4, 3, 3]), 8))
    b.output(b.gemm(b.reshape(y, [1, -1]), 5))
    ir.save(b.model(), tmp_path / "model.onnx")
    return tmp_path


def normal(count: int = 48) -> np.ndarray:
    random = np.random.default_rng(0)
    return (random.standard_normal((count, INPUTS)) @ random.standard_normal((INPUTS, INPUTS)) / 5).astype(np.float32)


def dead(x: np.ndarray) -> np.ndarray:
    x[:, ::3] = 0
    return x


def outliers(x: np.ndarray) -> np.ndarray:
    x[:, 1] *= 10
    x[::7] *= 10
    return x


def constant(x: np.ndarray) -> np.ndarray:
    return np.repeat(x[:1], len(x), axis=0)


def zero(x: np.ndarray) -> np.ndarray:
    return x * 0


def huge(x: np.ndarray) -> np.ndarray:
    return x * np.float32(1e12)


def tiny(x: np.ndarray) -> np.ndarray:
    return x * np.float32(1e-12)


def compiled(folder: Path, x: np.ndarray, *options: str) -> Any:
    """The package's patterns, after a look at what the model answers."""
    np.savez(folder / "data.npz", x=x)
    command = ("compile", "model.onnx", "--calib", "data.npz", "--samples", str(len(x)), "--no-measure", "--force")
    done = prunec(*command, *options, "-o", "out", "--json", cwd=folder)
    assert done.code == 0, done.err
    record = done.json["verification"]["patterns"]
    assert record["passed"] and all(layer["valid"] == layer["units"] > 0 for layer in record["layers"])
    session = make_session(load(folder / "out" / "model.onnx").model, threads=1)
    for row in x:
        assert np.isfinite(next(iter(run(session, {"x": row[None]}).values()))).all()
    for layer in record["layers"]:
        assert layer["error"] <= layer["error_plain"] and np.isfinite(layer["error"])
    return record["layers"]


def notes(layers: Any) -> list[str]:
    return [note for layer in layers for note in layer.get("notes") or ()]


@pytest.mark.parametrize("solver", SOLVERS)
def test_fewer_samples_than_inputs(folder: Path, solver: str) -> None:
    layers = compiled(folder, normal(5), "--pattern", "2:4", "--include", "*", "--solver", solver)
    assert len(layers) == 4
    expected = "fewer samples (4) than inputs (24): damping decides what is not known"
    assert solver == "udfc" or expected in notes(layers)


@pytest.mark.parametrize(
    ("change", "solver"),
    [
        *((change, solver) for change in (dead, outliers, constant, zero, huge, tiny) for solver in ("fast", "best")),
        *((change, solver) for change in (dead, constant) for solver in SOLVERS if solver not in ("fast", "best")),
    ],
)
def test_degenerate_inputs(folder: Path, solver: str, change: Any) -> None:
    layers = compiled(folder, change(normal()), "--pattern", "2:4", "--include", "*", "--solver", solver)
    if change in (dead, constant, zero) and solver in ("fast", "balanced", "best"):
        counted = {dead: 8, constant: INPUTS, zero: INPUTS}[change]
        assert f"{counted} inputs are always zero or constant" in layers[0]["notes"]


@pytest.mark.parametrize(("pattern", "level"), [("unstructured", "0.7"), ("block:4x1", "0.5"), ("kernel", "0.5")])
@pytest.mark.parametrize("change", [dead, constant, outliers], ids=lambda change: change.__name__)
def test_degenerate_inputs_with_other_patterns(folder: Path, pattern: str, level: str, change: Any) -> None:
    compiled(folder, change(normal()), "--pattern", pattern, "--sparsity", level, "--solver", "fast")


def test_outliers_do_not_take_over(folder: Path) -> None:
    """Solving on data with outliers still helps on data without."""
    compiled(folder, outliers(normal(200)), "--pattern", "2:4", "--include", "*", "--solver", "fast")
    models = [load(path).model for path in (folder / "model.onnx", folder / "out" / "model.onnx")]
    compiled(folder, outliers(normal(200)), "--pattern", "2:4", "--include", "*", "--no-compensate")
    models.append(load(folder / "out" / "model.onnx").model)
    sessions = [make_session(model, threads=1) for model in models]
    wanted, solved, plain = (
        np.concatenate([next(iter(run(s, {"x": row[None]}).values())) for row in normal(64)]) for s in sessions
    )
    assert np.square(solved - wanted).sum() < np.square(plain - wanted).sum()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_calibration_data_that_is_not_finite(folder: Path, value: float) -> None:
    x = normal()
    x[3, 2] = value
    np.savez(folder / "data.npz", x=x)
    done = prunec("compile", "model.onnx", "--pattern", "2:4", "--calib", "data.npz", "-o", "out", cwd=folder)
    refuses(done, "PC306")


@pytest.mark.parametrize("solver", ["fast", "magnitude", "udfc"])
def test_activations_that_are_not_finite(tmp_path: Path, solver: str) -> None:
    b = Builder(seed=1)
    x = b.input("x", [1, INPUTS])
    y = b.op("Log", [b.gemm(x, 32)])  # of negative numbers
    b.output(b.gemm(b.relu(b.gemm(y, 16)), 4))
    ir.save(b.model(), tmp_path / "model.onnx")
    options = ("--pattern", "2:4", "--samples", "40", "--solver", solver, "-o", "out")
    refuses(prunec("compile", "model.onnx", *options, cwd=tmp_path), "PC330")


def test_inputs_that_are_no_multiple_of_the_group(tmp_path: Path) -> None:
    b = Builder(seed=1)
    x = b.input("x", [1, INPUTS])
    b.output(b.gemm(b.relu(b.gemm(b.relu(b.gemm(x, 30)), 16)), 4))
    ir.save(b.model(), tmp_path / "model.onnx")
    options = ("compile", "model.onnx", "--samples", "40", "--no-measure", "-o", "out", "--json", "--solver", "fast")
    done = prunec(*options, "--pattern", "2:4", cwd=tmp_path)
    assert done.code == 0, done.err
    reasons = [layer["why"] for layer in done.json["plan"]["layers"] if layer["pattern"] == "dense"]
    assert "2:4 needs input channels in multiples of 4, there are 30" in reasons
    refuses(prunec(*options, "--force", "--pattern", "3:7", cwd=tmp_path), "PC225")
