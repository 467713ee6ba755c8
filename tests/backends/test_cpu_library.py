"""The shared library: what it refuses, several models and threads at once, and its use from C without Python."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto

pytest.importorskip("tvm", reason="needs the [tvm] extra")

from prunec.backends.cpu.artifact import write_artifact
from prunec.backends.cpu.isa import AVX2, AVX512, check_isa, host_isa
from prunec.backends.cpu.layout import EXAMPLE, LIBRARY, WEIGHTS
from prunec.backends.cpu.library import Model
from prunec.backends.cpu.link import c_compiler, link
from prunec.diagnostics import PrunecError
from tests.backends.kernel_support import needs_x86
from tests.backends.program_support import assert_equal, lowered
from tests.graph.builder import Builder

pytestmark = needs_x86


def network(seed: int) -> ir.Model:
    b = Builder(seed)
    x, i = b.input("x", [1, 3, 9, 9]), b.input("i", [2], TensorProto.INT64)
    y = b.op("GlobalAveragePool", [b.relu(b.conv(b.relu(b.conv(x, 32)), 32))])
    row = b.op("Gather", [b.weight(5, 32), i])
    b.output(b.op("Add", [b.op("Reshape", [y, b.const(np.array([1, 32]))]), row]))
    return b.model()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models that differ in their weights only."""
    found = []
    for seed in (1, 2):
        folder = tmp_path_factory.mktemp(f"model{seed}")
        write_artifact([lowered(network(seed))], host_isa(), folder)
        found.append(folder)
    return found


@pytest.fixture
def model(folders: list[Path]) -> Iterator[Model]:
    with Model(folders[0] / LIBRARY, folders[0] / WEIGHTS) as opened:
        yield opened


def feeds(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"x": rng.standard_normal((1, 3, 9, 9)).astype(np.float32), "i": rng.integers(-5, 5, 2)}


def refused(code: str, model: Model, changed: dict[str, np.ndarray]) -> str:
    with pytest.raises(PrunecError) as raised:
        model.run({**feeds(), **changed})
    assert raised.value.diagnostic.code == code
    return raised.value.diagnostic.message


def test_it_describes_itself(model: Model) -> None:
    assert [(t.name, t.shape, t.dtype.name) for t in (*model.inputs, *model.outputs)][:2] == [
        ("x", (1, 3, 9, 9), "float32"),
        ("i", (2,), "int64"),
    ]
    assert model.isa == host_isa().name and model.arena_bytes > 0
    steps = model.profile(feeds())
    assert any("conv" in name for name, _ in steps) and all(ns >= 0 for _, ns in steps)


def test_wrong_inputs_are_refused(model: Model) -> None:
    assert "float32, not float64" in refused("PC614", model, {"x": np.zeros((1, 3, 9, 9))})
    assert "(1, 3, 9, 9), not (2, 3, 9, 9)" in refused("PC614", model, {"x": np.zeros((2, 3, 9, 9), np.float32)})
    assert "not i, x, z" in refused("PC614", model, {"z": np.zeros(1, np.float32)})
    x = feeds()["x"]
    x[0, 2, 8, 8] = np.nan
    assert "NaN" in refused("PC621", model, {"x": x})
    assert "index 5 is outside a table of 5 entries" in refused("PC622", model, {"i": np.array([0, 5])})
    assert np.isfinite(next(iter(model.run(feeds()).values()))).all()  # a refusal leaves the model usable


def test_inputs_of_any_memory_order(model: Model) -> None:
    given = feeds()
    wanted = model.run(given)
    strided = {"x": np.asfortranarray(given["x"]), "i": np.repeat(given["i"], 2)[::2]}
    shifted = np.empty(given["x"].size + 1, np.float32)[1:].reshape(given["x"].shape)  # aligned to 4 bytes only
    shifted[...] = given["x"]
    for other in (strided, {"x": shifted, "i": given["i"]}):
        for name, array in model.run(other).items():
            assert np.array_equal(array, wanted[name])


def test_infinities_pass(model: Model) -> None:
    """No refusal: they are no NaN, though their sums are, here as in ONNX Runtime."""
    x = feeds()["x"]
    x[0, 0, 0, 0], x[0, 0, 0, 1] = np.inf, -np.inf
    given = {**feeds(), "x": x}
    assert all(np.isnan(array).all() for array in model.run(given).values())
    assert_equal(network(1), model, given)


@pytest.mark.parametrize("damage", ["truncated", "longer", "foreign", "missing", "folder"])
def test_damaged_weights_are_refused(folders: list[Path], tmp_path: Path, damage: str) -> None:
    path, data = tmp_path / WEIGHTS, (folders[0] / WEIGHTS).read_bytes()
    contents = {"truncated": data[:-64], "longer": data + b"\0", "foreign": (folders[1] / WEIGHTS).read_bytes()}
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes(contents[damage])
    says = {
        "truncated": "cut short", "longer": "another file", "foreign": "not the weights of this model",
        "missing": "No such file", "folder": "not a regular file",
    }  # fmt: skip
    with pytest.raises(PrunecError, match="PC622") as raised:
        Model(folders[0] / LIBRARY, path)
    assert says[damage] in raised.value.diagnostic.message


def test_wrong_libraries_and_threads_are_refused(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(PrunecError, match="PC622"):
        Model(tmp_path / "nothing.so", folders[0] / WEIGHTS)
    for threads in (0, 1000):
        with pytest.raises(PrunecError, match=r"PC622.*threads"):
            Model(folders[0] / LIBRARY, folders[0] / WEIGHTS, threads=threads)


def test_a_closed_model_is_refused(folders: list[Path]) -> None:
    model = Model(folders[0] / LIBRARY, folders[0] / WEIGHTS)
    model.close()
    model.close()
    with pytest.raises(PrunecError, match=r"PC622.*closed"):
        model.run(feeds())


def test_machines_without_the_instructions() -> None:
    flags = frozenset(AVX2.flags)
    assert host_isa(flags) == AVX2 and host_isa(frozenset(AVX512.flags)) == AVX512
    check_isa(AVX2, flags)
    with pytest.raises(PrunecError, match=r"PC451.*avx512f"):
        check_isa(AVX512, flags)
    with pytest.raises(PrunecError, match=r"PC451.*avx2"):
        host_isa(flags - {"avx2"})


def test_the_library_checks_the_processor(tmp_path: Path) -> None:
    """An instruction set that no processor has: the library refuses before any kernel runs."""
    from dataclasses import replace

    isa = host_isa()
    write_artifact([lowered(network(1))], replace(isa, name="x86-future", flags=(*isa.flags, "avx1024")), tmp_path)
    with pytest.raises(PrunecError, match=r"PC451.*made for x86-future, and this processor lacks avx1024"):
        Model(tmp_path / LIBRARY, tmp_path / WEIGHTS)


def test_two_models_in_one_process(folders: list[Path]) -> None:
    """Two libraries with the same symbols, and two instances of one of them, do not meet."""
    first, second = (Model(f / LIBRARY, f / WEIGHTS, threads=n) for n, f in enumerate(folders, 1))
    again = Model(folders[0] / LIBRARY, folders[0] / WEIGHTS)
    for seed in range(3):
        assert_equal(network(1), first, feeds(seed))
        assert_equal(network(2), second, feeds(seed))
        assert_equal(network(1), again, feeds(seed))
    for model in (first, second, again):
        model.close()


def test_a_library_that_was_written_again_is_loaded_again(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one process: under the same absolute name after another compile, and under the same relative one elsewhere."""
    kept = []
    for number in (0, 1, 0):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        shutil.copytree(folders[number], tmp_path / "out")
        kept.append(Model(tmp_path / "out" / LIBRARY, tmp_path / "out" / WEIGHTS))
        assert_equal(network(number + 1), kept[-1], feeds())
    for number in (0, 1):
        monkeypatch.chdir(folders[number])
        kept.append(Model(Path(LIBRARY), Path(WEIGHTS)))
        assert_equal(network(number + 1), kept[-1], feeds())
    assert_equal(network(1), kept[0], feeds())


def test_concurrent_runs_are_safe(folders: list[Path]) -> None:
    """Many threads on one model and many models at once give what each run alone gives."""
    shared = Model(folders[0] / LIBRARY, folders[0] / WEIGHTS, threads=2)
    own = [Model(folders[0] / LIBRARY, folders[0] / WEIGHTS) for _ in range(3)]
    wanted = {seed: next(iter(shared.run(feeds(seed)).values())) for seed in range(12)}

    def check(seed: int) -> bool:
        model = shared if seed % 2 else own[seed // 2 % 3]
        return all(np.array_equal(next(iter(model.run(feeds(seed)).values())), wanted[seed]) for _ in range(20))

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(check, range(12)))
    for model in (shared, *own):
        model.close()


def test_the_same_program_gives_the_same_bytes(folders: list[Path], tmp_path: Path) -> None:
    write_artifact([lowered(network(1))], host_isa(), tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {
        p.name: p.read_bytes() for p in folders[0].iterdir()
    }


def test_compilers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """ziglang where the system has no compiler; a refusal where there is neither, or where it fails."""
    monkeypatch.setattr("shutil.which", lambda name: None)
    if importlib.util.find_spec("ziglang") is not None:
        assert c_compiler()[1:3] == ["-m", "ziglang"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PrunecError, match="PC453") as raised:
        c_compiler()
    assert raised.value.diagnostic.hint == "pip install ziglang"
    monkeypatch.undo()
    with pytest.raises(PrunecError, match=r"PC453.*failed"):
        link([], "this is no C", tmp_path / LIBRARY, tmp_path)


def test_it_runs_from_c(folders: list[Path], tmp_path: Path) -> None:
    """The example compiles in one command and prints what Python gets."""
    folder, program = folders[0], tmp_path / "example"
    command = [*c_compiler(), "-std=c99", "-Wall", "-Wextra", "-Werror", str(folder / EXAMPLE), str(folder / LIBRARY)]
    done = subprocess.run([*command, f"-Wl,-rpath,{folder}", "-o", str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([str(program), WEIGHTS, "2"], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    with Model(folder / LIBRARY, folder / WEIGHTS) as model:
        (wanted,) = model.run({"x": np.zeros((1, 3, 9, 9), np.float32), "i": np.zeros(2, np.int64)}).values()
    assert np.allclose([float(n) for n in done.stdout.split(":")[1].split()], wanted.reshape(-1)[:8], rtol=1e-4)
    done = subprocess.run([str(program), "none"], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 1 and "No such file" in done.stderr
