"""What a compiled model does when memory, files or folders are not as they should be: it says so, and lives."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("tvm", reason="needs the [tvm] extra")

from prunec.backends.cpu.artifact import write_artifact
from prunec.backends.cpu.building import build
from prunec.backends.cpu.compiled import CompiledModel
from prunec.backends.cpu.isa import host_isa
from prunec.backends.cpu.layout import FOLDER, LIBRARY, PART_MODEL, WEIGHTS
from prunec.backends.cpu.library import Model
from prunec.diagnostics import PrunecError
from tests.backends.kernel_support import needs_x86
from tests.backends.program_support import lowered
from tests.graph.builder import Builder

pytestmark = needs_x86
MIB = 2**20
ODD_NAME = "mit Leerzeichen, ünïcødé 文 'und' \"mehr\""


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 MiB of weights, 192 MiB of intermediate results, an output of 64 MiB."""
    b = Builder(0)
    x = b.input("x", [1, 4096])
    table = b.const(np.zeros((4096, 4096), np.float32))
    wide = b.op("Mul", [b.op("Transpose", [b.op("Add", [x, table])], perm=[1, 0]), x])
    b.output(b.op("Softmax", [wide], axis=0), b.op("ReduceSum", [b.op("Softmax", [wide], axis=1)]))
    folder = tmp_path_factory.mktemp("big")
    write_artifact([lowered(b.model())], host_isa(), folder)
    assert (folder / WEIGHTS).stat().st_size >= 64 * MIB
    return folder


CHILD = """
import resource, sys
import numpy as np
from pathlib import Path
from prunec.backends.cpu.library import Model
from prunec.diagnostics import PrunecError
folder, mib, threads = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
feeds = {"x": np.ones((1, 4096), np.float32)}
pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (pages + mib * 2**20,) * 2)
try:
    model = Model(folder / "libmodel.so", folder / "model.weights", threads=threads)
    print("created", flush=True)
    model.run(feeds)
    print("ran")
except (PrunecError, MemoryError) as reason:
    print(type(reason).__name__, reason)
"""


@pytest.mark.parametrize(
    ("mib", "threads", "says"),
    [
        (24, 1, "PrunecError [PC622]: "),  # the weights cannot be mapped
        (150, 1, "PrunecError [PC622]: no memory for "),  # they can, the arena cannot
        (320, 64, "PrunecError [PC622]: cannot start 64 threads"),
        (300, 1, "created\nMemoryError"),  # the caller's output
        (900, 1, "created\nran"),
    ],
)
def test_too_little_memory_is_an_error(big: Path, mib: int, threads: int, says: str) -> None:
    with Model(big / LIBRARY, big / WEIGHTS) as model:
        assert 180 * MIB <= model.arena_bytes <= 200 * MIB, "the limits below are for this arena"
    command = [sys.executable, "-c", CHILD, str(big), str(mib), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert done.stdout.startswith(says), done.stdout
    assert mib > 24 or "memory" in done.stdout


def small() -> ir.Model:
    b = Builder(0)
    b.output(b.relu(b.conv(b.input("x", [1, 3, 9, 9]), 17)))
    return b.model()


FEEDS = {"x": np.ones((1, 3, 9, 9), np.float32)}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(small(), host_isa(), tmp_path_factory.mktemp("small")).folder


def test_names_with_spaces_and_signs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of the package's folder, and of the one for temporary files."""
    temporary = tmp_path / f"tmp {ODD_NAME}"
    folder = tmp_path / ODD_NAME
    temporary.mkdir()
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    built = build(small(), host_isa(), folder).folder
    assert not list(temporary.iterdir())
    model = CompiledModel(built)
    (y,) = model.run(FEEDS).values()
    assert y.shape == (1, 17, 9, 9)
    model.close()


def test_nothing_is_written_where_a_package_lies(package: Path, tmp_path: Path) -> None:
    copy = tmp_path / FOLDER
    shutil.copytree(package, copy)
    for path in copy.iterdir():
        path.chmod(0o444)
    copy.chmod(0o555)
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in copy.iterdir()}
    model = CompiledModel(copy, threads=2)
    model.run(FEEDS)
    model.close()
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in copy.iterdir()} == before
    copy.chmod(0o755)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(PermissionError):
        build(small(), host_isa(), tmp_path)
    tmp_path.chmod(0o755)


@pytest.mark.parametrize("share", [0.001, 0.2, 0.5, 0.9, 0.999])
def test_libraries_that_are_cut_short(package: Path, tmp_path: Path, share: float) -> None:
    """The system's loader would map them, and the first missing page would end the process."""
    data = (package / LIBRARY).read_bytes()
    (tmp_path / LIBRARY).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(PrunecError, match="PC622"):
        Model(tmp_path / LIBRARY, package / WEIGHTS)


def test_parts_that_onnx_runtime_cannot_load(tmp_path: Path) -> None:
    b = Builder(0)
    x = b.relu(b.conv(b.input("x", [1, 3, 9, 9]), 17))
    b.output(b.relu(b.op("LpPool", [x], kernel_shape=[2, 2])))
    folder = build(b.model(), host_isa(), tmp_path).folder
    (part,) = folder.rglob(PART_MODEL)
    CompiledModel(folder).close()
    part.write_bytes(part.read_bytes()[:-7])
    with pytest.raises(PrunecError, match=r"PC622.*ONNX Runtime"):
        CompiledModel(folder)


def test_infinities_go_through_and_nan_does_not(package: Path) -> None:
    model = CompiledModel(package)
    x = FEEDS["x"].copy()
    x[0, 0, 0, 0] = np.inf
    (y,) = model.run({"x": x}).values()
    assert np.isinf(y).any()
    x[0, 0, 8, 8] = np.nan
    with pytest.raises(PrunecError, match="PC621"):
        model.run({"x": x})
    model.close()


BRANCHES = """<ir_version: 9, opset_import: ["" : 17]>
m (float[4] x, bool c) => (float[4] y) <float[4] shift = {1, 2, 3, 4}> {
    a = Relu (x)
    b = If (c) <
        then_branch = t () => (float[4] p) { p = Add (a, shift) },
        else_branch = e () => (float[4] q) { q = Neg (a) }
    >
    y = Exp (b)
}"""


def test_a_branch_in_a_part_of_its_own_gets_what_it_captures(tmp_path: Path) -> None:
    folder = build(ir.from_onnx_text(BRANCHES), host_isa(), tmp_path).folder
    model, x = CompiledModel(folder), np.array([-1, 0, 1, 2], np.float32)
    assert [record["op"] for record in model.foreign] == ["If"]
    for c in (True, False):
        (y,) = model.run({"x": x, "c": np.array(c)}).values()
        inner = np.maximum(x, 0) + np.arange(1, 5) if c else -np.maximum(x, 0)
        assert np.allclose(y, np.exp(inner), rtol=1e-5)
    model.close()
