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
from prunec.backends.arm64.emulated import EmulatedModel
from prunec.diagnostics import PrunecError
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
    assert header == "number,nodes,best_ns" and len(rows) == len(model.spec.steps) + 1
    assert rows[-1].startswith("run,,") and all(int(row.rpartition(",")[2]) > 0 for row in rows)
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
        ("PC440", "--weights", "embedded"), ("PC440", "--precision", "int8"), ("PC463", "--tune", "quick"),
        ("PC452", "--shape-range", "x=1x3x9x7:1x3x9x7:1x3x9x7"),
    ):  # fmt: skip
        refuses(prunec(*command, "--no-build", *options, cwd=tmp_path), code)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    refuses(prunec(*command, cwd=tmp_path), "PC455")
