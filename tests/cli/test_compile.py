"""`compile` from end to end: what it writes, and that the same inputs give the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import prunec as package
from tests.cli.helpers import COMMAND, ENVIRONMENT, files, process, prunec, refuses, small_model

FAST = ("--no-measure", "--samples", "16")
TOO_MUCH = ("--sparsity", "0.9", "--no-compensate", "--max-drop", "0", *FAST)
EVIDENCE = ("measurements.json", "report.html", "verification.json")


def test_a_package_and_pure_json(folder: Path) -> None:
    before = (folder / "model.onnx").read_bytes()
    both = ("--flops", "0.5", "--scope", "layer")  # a cut of both groups
    done = prunec("compile", "model.onnx", *both, *FAST, "-o", "out", "--dump", "dump", "--json", cwd=folder)
    assert done.code == 0, done.err
    document = done.json
    verification = json.loads((folder / "out" / "verification.json").read_text())
    assert document["verification"] == verification
    assert verification["exactness"]["passed"] and verification["exactness"]["groups_checked"] == 2
    assert verification["exactness"]["class_a_max_rel"] <= 1e-5
    assert all(trial["float64"] <= 1e-12 for trial in document["proof"]) and len(document["proof"]) == 2
    assert verification["quality"]["data"] == "synthetic" and "lowering" not in verification
    assert verification["sparsity"]["realised_flops"] >= 0.5
    assert document["plan"] == json.loads((folder / "out" / "plan.json").read_text())
    assert "measurements" not in document and not (folder / "out" / "measurements.json").exists()
    names = {"manifest.json", "plan.json", "model.onnx", "verification.json", "report.html", "README.txt"}
    assert set(files(folder / "out")) == names
    assert set(files(folder / "dump")) == {"canonical.onnx", "masked.onnx", "cut.onnx", "model.onnx"}
    assert (folder / "dump" / "model.onnx").read_bytes() == (folder / "out" / "model.onnx").read_bytes()
    assert (folder / "model.onnx").read_bytes() == before
    assert {path.name for path in folder.iterdir()} == {"model.onnx", "out", "dump"}


def test_the_dumps_are_the_proof(folder: Path) -> None:
    """masked.onnx and cut.onnx are all that a sceptic needs."""
    assert prunec("compile", "model.onnx", "--flops", "0.5", *FAST, "--dump", "dump", cwd=folder).code == 0
    x = np.random.default_rng(5).standard_normal((1, 3, 12, 12)).astype(np.float32)
    masked, cut, model = (
        onnxruntime.InferenceSession(folder / "dump" / f"{stage}.onnx").run(None, {"x": x})[0]
        for stage in ("masked", "cut", "model")
    )
    assert np.abs(masked - cut).max() <= 1e-5 * np.abs(masked).max()
    assert np.abs(model - cut).max() > 1e-5 * np.abs(cut).max()
    assert (folder / "model.pruned" / "manifest.json").exists()


def test_the_same_inputs_give_the_same_bytes(folder: Path) -> None:
    for out in ("one", "two"):
        assert prunec("compile", "model.onnx", "--sparsity", "0.5", *FAST, "-o", out, cwd=folder).code == 0
    one, two = files(folder / "one"), files(folder / "two")
    assert {name: one[name] == two[name] for name in one if name not in EVIDENCE} == {
        "README.txt": True, "manifest.json": True, "model.onnx": True, "plan.json": True,
    }  # fmt: skip
    assert str(folder).encode() not in b"".join(one[name] for name in one if name not in EVIDENCE)


def test_a_plan_replays_byte_for_byte(folder: Path) -> None:
    images = np.random.default_rng(0).standard_normal((20, 3, 12, 12)).astype(np.float32)
    np.savez(folder / "data.npz", x=images)
    data = ("--calib", "data.npz", "--samples", "16")
    made = process("plan", "model.onnx", "--flops", "0.5", "--seed", "3", *data, "-o", "p.json", cwd=folder)
    assert made.code == 0, made.err
    common = (*data, "--no-measure")
    direct = prunec("compile", "model.onnx", "--flops", "0.5", "--seed", "3", *common, "-o", "direct", cwd=folder)
    assert direct.code == 0, direct.err
    assert (folder / "p.json").read_bytes() == (folder / "direct" / "plan.json").read_bytes()
    replayed = prunec("compile", "model.onnx", "--plan", "p.json", *common, "-o", "replayed", cwd=folder)
    assert replayed.code == 0, replayed.err
    for name in ("model.onnx", "plan.json", "manifest.json"):
        assert (folder / "direct" / name).read_bytes() == (folder / "replayed" / name).read_bytes(), name


@pytest.mark.parametrize("how", [("--no-compensate",), ("--recipe", "flap"), ("--samples", "12")])
def test_a_plan_knows_how_its_model_was_refitted(folder: Path, how: tuple[str, ...]) -> None:
    np.savez(folder / "data.npz", x=np.random.default_rng(0).standard_normal((20, 3, 12, 12)).astype(np.float32))
    common = ("--calib", "data.npz", "--no-measure")
    assert prunec("compile", "model.onnx", "--flops", "0.5", *how, *common, "-o", "direct", cwd=folder).code == 0
    replay = ("--plan", "direct/plan.json", *common, "-o", "replayed")
    assert prunec("compile", "model.onnx", *replay, cwd=folder).code == 0
    assert (folder / "direct/model.onnx").read_bytes() == (folder / "replayed/model.onnx").read_bytes()
    assert prunec("compile", "model.onnx", *replay, "--recipe", "l2", "--force", cwd=folder).code == 0
    documents = [json.loads((folder / out / "plan.json").read_text()) for out in ("direct", "replayed")]
    changed = {key for key in documents[0] if documents[0][key] != documents[1].get(key)}
    assert changed == (set() if "--no-compensate" in how else {"compensation"})


def test_a_plan_for_another_model_is_refused(folder: Path) -> None:
    small_model(folder / "other.onnx", seed=1)
    assert prunec("plan", "model.onnx", "--flops", "0.5", "-o", "p.json", cwd=folder).code == 0
    refuses(prunec("compile", "other.onnx", "--plan", "p.json", *FAST, cwd=folder), "PC205")


def test_dry_run_writes_nothing(folder: Path) -> None:
    before = files(folder)
    done = prunec("compile", "model.onnx", "--flops", "0.5", "--dry-run", "--json", cwd=folder)
    assert done.code == 0 and files(folder) == before
    assert set(done.json) <= {"target", "plan", "warnings", "command", "proof", "layers"}
    assert done.json["plan"]["realised"]["flops"] <= 0.5


def test_a_gate_that_says_no_leaves_no_package(folder: Path) -> None:
    done = prunec("compile", "model.onnx", *TOO_MUCH, "-o", "out", "--json", cwd=folder)
    refuses(done, "PC507", exit_code=1)
    assert done.json["error"]["code"] == "PC507" and done.json["verification"]["quality"]["drop"] > 0
    assert "out" not in done.json and set(files(folder)) == {"model.onnx"}


def test_a_failed_gate_leaves_the_old_package_alone(folder: Path) -> None:
    assert prunec("compile", "model.onnx", "--sparsity", "0.3", *FAST, "-o", "out", cwd=folder).code == 0
    before = files(folder)
    done = prunec("compile", "model.onnx", *TOO_MUCH, "-o", "out", "--force", cwd=folder)
    assert done.code == 1 and files(folder) == before


def test_python_does_what_the_command_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    found = package.compile("model.onnx", flops=0.5, samples=16, measure=False, output="by-python")
    done = process("compile", "model.onnx", "--flops", "0.5", *FAST, "-o", "by-command", "--json", cwd=folder)
    document, other = found.to_json(), done.json
    assert document.pop("out") != other.pop("out")
    assert document == other
    assert (folder / "by-python" / "model.onnx").read_bytes() == (folder / "by-command" / "model.onnx").read_bytes()


def test_a_metric_that_prints_does_not_spoil_the_json(folder: Path) -> None:
    (folder / "loud.py").write_text(
        "import os\n"
        "def accuracy(run, samples=4):\n"
        "    print('hello from the metric')\n"
        "    os.system('echo hello from a child')\n"
        "    return {'accuracy': 0.75, 'samples': samples}\n"
    )
    done = process("compile", "model.onnx", "--flops", "0.5", *FAST, "--metric", "loud:accuracy", "--json", cwd=folder)
    assert done.code == 0, done.err
    quality = done.json["verification"]["quality"]
    assert (quality["metric"], quality["dense"], quality["drop"], quality["data"]) == ("accuracy", 0.75, 0, "user")
    assert "hello from the metric" in done.err and "hello from a child" in done.err


def test_measured_faster_passes_and_absurdly_faster_does_not(folder: Path) -> None:
    done = prunec("compile", "model.onnx", "--sparsity", "0.8", "--samples", "16", "--min-speedup", "1000", "--json",
                  cwd=folder)  # fmt: skip
    refuses(done, "PC517", exit_code=1)
    assert done.json["measurements"]["speedup"]["vs_dense_onnxruntime"]["median"] > 0
    assert set(files(folder)) == {"model.onnx"}


@pytest.mark.parametrize(
    ("stage", "number", "code", "budget"),
    [
        ("reading", signal.SIGINT, 130, "--flops"),
        ("compensating", signal.SIGTERM, 143, "--flops"),
        ("measuring", signal.SIGINT, 130, "--flops"),
        ("timing whole models", signal.SIGINT, 130, "--max-drop"),
    ],
)
def test_a_signal_leaves_nothing_behind(
    number: signal.Signals, code: int, stage: str, budget: str, folder: Path
) -> None:
    scratch = folder.parent / f"{folder.name}-scratch"
    scratch.mkdir()
    process = subprocess.Popen(
        [*COMMAND, "compile", "model.onnx", budget, "0.5", "--samples", "256", "--dump", "dump", "--json"],
        cwd=folder,
        env={**ENVIRONMENT, "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    seen = ""
    while stage not in seen:
        line = process.stderr.readline()
        assert line, seen
        seen += line
    time.sleep(0.05)
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    how = "interrupted" if number == signal.SIGINT else "terminated"
    assert json.loads(out)["error"] == {"code": "PC618", "message": f"{how}; nothing was written", "exit_code": code}
    assert set(files(folder)) == {"model.onnx"} and files(scratch) == {}
    assert [path.name for path in folder.iterdir()] == ["model.onnx"] and list(scratch.iterdir()) == []
