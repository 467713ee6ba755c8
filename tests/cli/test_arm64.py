"""`--target arm64` from the command line: what a package holds, that it runs under qemu, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("tvm", reason="needs the [tvm] extra")
pytest.importorskip("ziglang", reason="needs the [cross] extra")

import prunec as public
from prunec.backends.arm64.device import read_times
from prunec.backends.arm64.emulated import EmulatedModel
from prunec.backends.cross.spec import ModelSpec
from prunec.diagnostics import PrunecError
from prunec.report.device import device_section, with_device
from tests.cli.helpers import prunec, refuses
from tests.cli.networks import residual

emulated = pytest.mark.skipif(shutil.which("qemu-aarch64") is None, reason="needs qemu-user")
TARGET = ("--target", "arm64", "--sparsity", "0.5")
FAST = ("--samples", "10", "--solver", "fast", "--no-cache", "--no-compensate")


SMALL = ([1, 3, 9, 7], 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and `out`: its package."""
    path = tmp_path_factory.mktemp("arm64")
    ir.save(residual(*SMALL), path / "model.onnx")
    done = prunec("compile", "model.onnx", *TARGET, *FAST, "-o", "out", "--json", cwd=path)
    assert done.code == 0, done.err
    (path / "answer.json").write_text(done.out)
    return path


@emulated
@pytest.mark.slow  # the first link builds two C libraries
def test_a_package_is_checked_and_says_that_it_was_not_timed(folder: Path) -> None:
    answer = json.loads((folder / "answer.json").read_text())
    lowering = answer["verification"]["lowering"]
    assert lowering["passed"] and 0 < lowering["max_rel"] <= lowering["tolerance"] == 1e-5
    assert "PC468" in {warning["code"] for warning in answer["warnings"]} and "measurements" not in answer
    assert "modelled" in answer
    files = {"libmodel.so", "libmodel.a", "model.weights", "model.json", "prunec.h", "example.c", "runner"}
    assert {name for name in answer["manifest"]["files"] if "/" in name} == {f"arm64/{name}" for name in files}
    readme = (folder / "out" / "README.txt").read_text()
    assert "NOT EXECUTED ON A DEVICE" in readme and "compared with ONNX Runtime under qemu" in readme
    for name in ("libmodel.so", "runner"):  # ELF of 64 bits for AArch64 (183)
        head = (folder / "out" / "arm64" / name).read_bytes()[:20]
        assert head[:5] == b"\x7fELF\x02" and int.from_bytes(head[18:20], "little") == 183
    assert prunec("verify", "out", cwd=folder).code == 0


@emulated
@pytest.mark.slow
def test_the_runner(folder: Path, tmp_path: Path) -> None:
    """Numbers through files, a table of steps, and defined errors."""
    own = folder / "out" / "arm64"
    model = EmulatedModel(own)
    x = np.random.default_rng(0).standard_normal((1, 3, 9, 7)).astype(np.float32)
    found, wanted = (public.load(folder / "out", runtime=r).run({"x": x}) for r in ("prunec", "onnxruntime"))
    for name, array in wanted.items():
        assert 0 < np.abs(found[name] - array).max() <= 1e-5 * np.abs(array).max()
    header, *rows = model.start(3).strip().splitlines()
    assert header == "number,nodes,best_ns" and len(rows) == len(model.spec.steps) + 2
    assert rows[-2].startswith("run,,") and all(int(row.rpartition(",")[2]) > 0 for row in rows)
    assert rows[-1].startswith('device,"') and rows[-1].endswith(",1")
    with pytest.raises(PrunecError, match="PC614"):
        model.run({"x": x[:, :2]})
    (tmp_path / "short").write_bytes(b"\0" * 8)
    with pytest.raises(PrunecError, match="does not hold the 756 bytes"):
        model.start(0, tmp_path / "short", tmp_path / "out")
    shutil.copytree(own, tmp_path / "arm64")
    weights = tmp_path / "arm64" / "model.weights"
    weights.write_bytes(weights.read_bytes()[:-64])
    with pytest.raises(PrunecError, match="PC622"):
        EmulatedModel(tmp_path / "arm64").run({"x": x})


@emulated
@pytest.mark.slow
def test_the_static_library_links(folder: Path, tmp_path: Path) -> None:
    """The example of the package against the archive: all symbols are there."""
    from prunec.backends.arm64.emulated import emulator
    from prunec.backends.cross.zig import compile_c

    own = folder / "out" / "arm64"
    command = ["cc", "-target", "aarch64-linux-gnu.2.28", str(own / "example.c"), str(own / "libmodel.a")]
    compile_c([*command, "-lm", "-pthread", "-o", "example"], tmp_path)
    compile_c(["cc", "-target", "aarch64-linux-gnu.2.28", str(own / "example.c"), str(own / "libmodel.so"),
               "-o", "shared"], tmp_path)  # fmt: skip
    assert emulator() and (tmp_path / "example").stat().st_size > (tmp_path / "shared").stat().st_size


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ir.save(residual(*SMALL), tmp_path / "model.onnx")
    ir.save(residual(*SMALL, with_pool=True), tmp_path / "pool.onnx")
    command = ("compile", "model.onnx", *TARGET, *FAST)
    done = prunec("compile", "pool.onnx", *TARGET, *FAST, "--no-build", cwd=tmp_path)
    refuses(done, "PC464")
    assert "LpPool (no generated code for this operator)" in done.err
    for code, *options in (
        ("PC440", "--weights", "embedded"), ("PC440", "--precision", "fp16"), ("PC463", "--tune", "quick"),
        ("PC452", "--shape-range", "x=1x3x9x7:1x3x9x7:1x3x9x7"),
    ):  # fmt: skip
        refuses(prunec(*command, "--no-build", *options, cwd=tmp_path), code)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    refuses(prunec(*command, cwd=tmp_path), "PC455")


STEPS = ("conv1, relu2", "gemm,3")
TABLE = """\
number,nodes,best_ns
0,"conv1, relu2",1500
1,"gemm,3",500
run,,2100
device,"Some ""board"" 5",4
"""


@pytest.fixture
def described(tmp_path: Path) -> Path:
    """A folder that says which steps its model has."""
    (tmp_path / "arm64").mkdir()
    spec = ModelSpec(name="model", inputs=(), outputs=(), weights_bytes=64, arena_bytes=0, steps=STEPS)
    (tmp_path / "arm64" / "model.json").write_text(spec.model_dump_json())
    return tmp_path


def test_what_a_device_printed_is_read(described: Path) -> None:
    (described / "times.csv").write_text(TABLE)
    found = read_times(described / "times.csv", described / "arm64")
    assert found.device == 'Some "board" 5' and found.threads == 4 and found.run_ms == 0.0021
    assert [(step.nodes, step.best_us) for step in found.steps] == [(STEPS[0], 1.5), (STEPS[1], 0.5)]
    page = with_device(f"<p>before</p>{device_section(None)}<p>after</p>", found)
    assert page is not None and page.startswith("<p>before</p>") and page.endswith("<p>after</p>")
    assert "Measured on Some &#34;board&#34; 5" in page and with_device(page, found) == page
    assert with_device("<p>another page</p>", found) is None


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("", "is no table"),
        (TABLE.replace("gemm,3", "gemm4"), "of another model"),
        (TABLE.replace("run,,2100\n", ""), "of another model"),
        (TABLE[: TABLE.index("\n1,")], "of another model"),
        (TABLE.replace("1500", "fast"), "is no number"),
        (TABLE.replace("1500", "-1"), "below zero"),
        (TABLE.replace("run,", "run,more,"), "is no table"),
        (TABLE.replace('5",4', "5,4"), "cannot be read"),
    ],
)
def test_what_no_device_printed_is_refused(described: Path, table: str, said: str) -> None:
    (described / "times.csv").write_text(table)
    with pytest.raises(PrunecError, match="PC623") as refused:
        read_times(described / "times.csv", described / "arm64")
    assert said in str(refused.value)
    with pytest.raises(PrunecError, match="PC623"):
        read_times(described / "none.csv", described / "arm64")


@emulated
@pytest.mark.slow
def test_modelled_times_and_those_of_a_device(folder: Path, tmp_path: Path) -> None:
    """Labelled as what they are, in the file and in the report; a device's times join them."""
    shutil.copytree(folder / "out", tmp_path / "out")
    document = json.loads((tmp_path / "out" / "measurements.json").read_text())
    modelled = document["modelled"]
    assert document.keys() == {"modelled"} and "Cortex-A76" in modelled["core"] and "not measured" in modelled["note"]
    sparse = [layer for layer in modelled["layers"] if layer["density"] == 0.5]
    assert sparse and all(layer["sparse_us"] < layer["dense_us"] for layer in sparse)
    assert all(0 < layer["sparse_instructions"] < layer["dense_instructions"] for layer in sparse)
    assert "Modelled for Cortex-A76" in (tmp_path / "out" / "report.html").read_text()
    asked = prunec("bench", "out", "--json", cwd=tmp_path)
    assert asked.code == 0 and asked.json["command"].startswith("cd arm64 && ./runner model.weights 1 ")
    assert "./runner" in prunec("bench", "out", cwd=tmp_path).out
    (tmp_path / "times.csv").write_text(EmulatedModel(tmp_path / "out" / "arm64").start(2))
    done = prunec("bench", "out", "--device-csv", "times.csv", "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    after = json.loads((tmp_path / "out" / "measurements.json").read_text())
    assert after["modelled"] == modelled and after["device"] == done.json["device"] and after["device"]["run_ms"] > 0
    assert f"Measured on {after['device']['device']}" in (tmp_path / "out" / "report.html").read_text()
    assert prunec("verify", "out", cwd=tmp_path).code == 0
    (tmp_path / "times.csv").write_text("number,nodes,best_ns\n")
    refuses(prunec("bench", "out", "--device-csv", "times.csv", cwd=tmp_path), "PC623")
