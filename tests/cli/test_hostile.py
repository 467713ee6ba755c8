"""Files, folders and options that are wrong: exit 2, one error with its code, nothing left behind."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.cli.helpers import Done, files, process, prunec, refuses

BUDGET = ("--sparsity", "0.5", "--no-measure")


def compile_fails(folder: Path, code: str, *arguments: object, exit_code: int = 2) -> Done:
    """`prunec compile ARGUMENTS` refuses, in both forms, and leaves the folder as it was."""
    before = files(folder)
    done = prunec("compile", *arguments, "--json", cwd=folder)
    refuses(done, code, exit_code=exit_code)
    assert done.json["error"]["code"] == code and done.json["error"]["exit_code"] == exit_code
    assert files(folder) == before
    return done


def test_in_a_process_of_its_own(folder: Path) -> None:
    before = files(folder)
    done = process("compile", "no.onnx", *BUDGET, "--json", cwd=folder)
    refuses(done, "PC001")
    assert done.json["error"]["code"] == "PC001" and files(folder) == before


def test_missing(folder: Path) -> None:
    compile_fails(folder, "PC001", "no.onnx", *BUDGET)


def test_truncated(folder: Path) -> None:
    data = (folder / "model.onnx").read_bytes()
    (folder / "short.onnx").write_bytes(data[: len(data) // 2])
    compile_fails(folder, "PC003", "short.onnx", *BUDGET)


def test_text(folder: Path) -> None:
    (folder / "text.onnx").write_text("hello, this is no model\n" * 20)
    compile_fails(folder, "PC003", "text.onnx", *BUDGET)


def test_empty(folder: Path) -> None:
    (folder / "empty.onnx").write_bytes(b"")
    compile_fails(folder, "PC002", "empty.onnx", *BUDGET)


def test_folder_as_model(folder: Path) -> None:
    compile_fails(folder, "PC001", ".", *BUDGET)


def test_nan_weights(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    tensor = model.graph.initializer[0]
    array = onnx.numpy_helper.to_array(tensor).copy()
    array.flat[0] = np.nan
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    onnx.save(model, folder / "nan.onnx")
    compile_fails(folder, "PC012", "nan.onnx", *BUDGET)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_folder(folder: Path) -> None:
    locked = folder / "locked"
    locked.mkdir(mode=0o500)
    compile_fails(folder, "PC604", "model.onnx", *BUDGET, "-o", "locked/out")


def test_no_folder_for_the_package(folder: Path) -> None:
    compile_fails(folder, "PC604", "model.onnx", *BUDGET, "-o", "nowhere/out")


def test_existing_package_and_existing_folder(folder: Path) -> None:
    assert prunec("compile", "model.onnx", *BUDGET, "-o", "out", cwd=folder).code == 0
    compile_fails(folder, "PC601", "model.onnx", *BUDGET, "-o", "out")
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.txt").write_text("years of work")
    compile_fails(folder, "PC602", "model.onnx", *BUDGET, "-o", "mine", "--force")
    assert prunec("compile", "model.onnx", *BUDGET, "-o", "out", "--force", cwd=folder).code == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], "PC220"),
        (["--max-drop", "0.1", "--no-measure"], "PC222"),
        (["--max-drop", "0.1", "--pattern", "block:4x1"], "PC230"),
        (["--speedup", "0.5"], "PC208"),
        (["--size-mb", "-1"], "PC208"),
        (["--speedup", "2", "--latency-ms", "5"], "PC220"),
        (["--speedup", "2", "--target", "cpu", "--pattern", "channel"], "PC230"),
        (["--sparsity", "0.5", "--flops", "0.5"], "PC220"),
        (["--sparsity", "1.5"], "PC208"),
        (["--flops", "0"], "PC208"),
        (["--params", "0.0001"], "PC207"),
        (["--sparsity", "0.5", "--min-speedup", "2", "--no-measure"], "PC222"),
        (["--sparsity", "0.5", "--min-speedup", "-1"], "PC208"),
        (["--sparsity", "0.5", "--max-drop", "-1"], "PC208"),
        (["--sparsity", "0.5", "--target", "toaster"], "PC401"),
        (["--sparsity", "0.5", "--pattern", "4:2"], "PC215"),
        (["--sparsity", "0.7", "--pattern", "2:4"], "PC224"),
        (["--pattern", "block:4x1"], "PC224"),
        (["--pattern", "vnm:512:2:8"], "PC225"),
        (["--sparsity", "0.5", "--solver", "fast"], "PC208"),
        (["--pattern", "2:4", "--criterion", "l1"], "PC220"),
        (["--pattern", "2:4", "--structures", "depth"], "PC220"),
        (["--pattern", "2:4", "--solver", "nope"], "PC203"),
        (["--sparsity", "0.5", "--no-permute"], "PC208"),
        (["--plan", "nope.json", "--pattern", "2:4", "--permute"], "PC221"),
        (["--sparsity", "0.5", "--recipe", "nope"], "PC203"),
        (["--sparsity", "0.5", "--criterion", "nope"], "PC203"),
        (["--sparsity", "0.5", "--scope", "nope"], "PC208"),
        (["--sparsity", "0.5", "--exclude", "nope"], "PC206"),
        (["--sparsity", "0.5", "--metric", "nope"], "PC350"),
        (["--sparsity", "0.5", "--metric", "nope_module:f"], "PC350"),
        (["--sparsity", "0.5", "--calib", "nope.npz"], "PC301"),
        (["--plan", "nope.json"], "PC204"),
        (["--plan", "model.onnx"], "PC204"),
        (["--plan", "nope.json", "--flops", "0.5"], "PC221"),
        (["--sparsity", "0.5", "--input-shape", "x=2,3,12,12"], "PC017"),
    ],
)
def test_options(arguments: list[str], code: str, folder: Path) -> None:
    compile_fails(folder, code, "model.onnx", *arguments)


def test_calibration_with_wrong_names_shapes_and_numbers(folder: Path) -> None:
    good = np.zeros((8, 3, 12, 12), np.float32)
    for name, arrays, code in (
        ("names", {"images": good}, "PC303"),
        ("shape", {"x": good[:, :, :5]}, "PC304"),
        ("nan", {"x": good * np.nan}, "PC306"),
        ("none", {"x": good[:0]}, "PC307"),
    ):
        np.savez(folder / f"{name}.npz", **arrays)
        compile_fails(folder, code, "model.onnx", *BUDGET, "--calib", f"{name}.npz")
    (folder / "bad.npz").write_bytes(b"not an archive")
    compile_fails(folder, "PC302", "model.onnx", *BUDGET, "--calib", "bad.npz")


def test_a_metric_that_fails_leaves_nothing(folder: Path) -> None:
    (folder / "failing_metric.py").write_text("def f(run):\n    raise KeyError('logits')\n")
    done = compile_fails(folder, "PC351", "model.onnx", *BUDGET, "--metric", "failing_metric:f", "-o", "out")
    assert "judging the dense model" in done.err and "statistics" not in done.err  # before any work is done


def test_dump_does_not_overwrite(folder: Path) -> None:
    (folder / "dump").mkdir()
    (folder / "dump" / "cut.onnx").write_text("mine")
    compile_fails(folder, "PC607", "model.onnx", *BUDGET, "--dump", "dump")


def test_packages_that_are_none(folder: Path) -> None:
    refuses(prunec("verify", "nope", cwd=folder), "PC610")
    refuses(prunec("bench", folder, cwd=folder), "PC610")
