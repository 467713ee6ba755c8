"""`verify`, `bench` and the lists."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import prunec as package
from tests.cli.helpers import process, prunec, refuses, small_model


@pytest.fixture
def compiled(folder: Path) -> Path:
    done = prunec("compile", "model.onnx", "--flops", "0.5", "--samples", "16", "--no-measure", "-o", "out", cwd=folder)
    assert done.code == 0, done.err
    return folder


def test_a_package_verifies_alone_and_against_its_source(compiled: Path) -> None:
    alone = process("verify", "out", "--json", cwd=compiled)
    assert alone.code == 0 and alone.json["passed"] and "exactness" not in alone.json
    recorded = json.loads((compiled / "out" / "verification.json").read_text())
    assert alone.json["recorded"] == recorded
    full = prunec("verify", "out", "--source", "model.onnx", "--samples", "16", "--json", cwd=compiled)
    assert full.code == 0, full.err
    assert full.json["exactness"] == recorded["exactness"] and full.json["quality"] == recorded["quality"]
    assert "exact up to" in prunec("verify", "out", "--source", "model.onnx", cwd=compiled).out


def test_quality_on_real_data_is_not_judged_again_on_made_up_data(folder: Path) -> None:
    np.savez(folder / "data.npz", x=np.random.default_rng(0).standard_normal((20, 3, 12, 12)).astype(np.float32))
    data = ("--calib", "data.npz", "--samples", "16")
    made = prunec("compile", "model.onnx", "--flops", "0.5", *data, "--no-measure", "-o", "out", "--json", cwd=folder)
    assert made.code == 0 and not any(warning["code"] == "PC323" for warning in made.json.get("warnings", []))
    bare = prunec("verify", "out", "--source", "model.onnx", cwd=folder)
    assert bare.code == 0 and "not judged again without the data" in bare.out
    found = prunec("verify", "out", "--source", "model.onnx", *data, "--json", cwd=folder).json
    assert found["quality"] == found["recorded"]["quality"] == made.json["verification"]["quality"]


@pytest.mark.parametrize("name", ["model.onnx", "plan.json"])
def test_a_changed_file_is_a_no(name: str, compiled: Path) -> None:
    path = compiled / "out" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    refuses(prunec("verify", "out", cwd=compiled), "PC612", exit_code=1)


def test_a_missing_file_is_a_no(compiled: Path) -> None:
    (compiled / "out" / "model.onnx").unlink()
    refuses(prunec("verify", "out", cwd=compiled), "PC611", exit_code=1)


def test_another_source_is_refused(compiled: Path) -> None:
    small_model(compiled / "other.onnx", seed=1)
    refuses(prunec("verify", "out", "--source", "other.onnx", cwd=compiled), "PC615")
    refuses(prunec("bench", "out", "--source", "other.onnx", cwd=compiled), "PC615")
    refuses(prunec("verify", "out", "--calib", "x.npz", cwd=compiled), "PC223")


def test_bench_measures_again(compiled: Path) -> None:
    done = process("bench", "out", "--source", "model.onnx", "--blocks", "10", "--json", cwd=compiled)
    assert done.code == 0, done.err
    assert set(done.json["contenders"]) == {"dense_onnxruntime", "pruned_onnxruntime"}
    assert len(done.json["speedup"]["vs_dense_onnxruntime"]["ci95"]) == 2
    refuses(prunec("bench", "out", "--threads", "10000", cwd=compiled), "PC510")


@pytest.mark.parametrize(("command", "key"), [("targets", "targets"), ("recipes", "recipes"), ("zoo list", "models")])
def test_lists(command: str, key: str, tmp_path: Path) -> None:
    done = process(*command.split(), "--json", cwd=tmp_path)
    assert done.code == 0 and done.err == "" and len(done.json[key]) > 1
    function = getattr(package, command.split()[0])
    assert function().to_json() == done.json
    assert all(row["name"] in prunec(*command.split(), cwd=tmp_path).out for row in done.json[key][:3])


def test_an_unknown_model_of_the_zoo(tmp_path: Path) -> None:
    refuses(prunec("zoo", "get", "nope", cwd=tmp_path), "PC707")
    (tmp_path / "there.onnx").write_text("mine")
    refuses(prunec("zoo", "get", "ocr-rec", "-o", "there.onnx", cwd=tmp_path), "PC608")
