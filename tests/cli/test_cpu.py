"""`--target cpu` from the command line: packages that run without TVM, what is refused, what runs in ONNX Runtime."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("tvm", reason="needs the [tvm] extra")

import prunec as public
from prunec.api.saving import not_default
from prunec.backends.cpu.isa import AVX2, host_isa
from prunec.diagnostics import PrunecError
from prunec.measure.results import Measurements
from tests.backends.kernel_support import needs_x86
from tests.cli.helpers import ENVIRONMENT, files, prunec, refuses
from tests.cli.networks import residual
from tests.graph.builder import Builder

pytestmark = needs_x86
TARGET = ("--target", "cpu", "--pattern", "block:16x1", "--sparsity", "0.75")
FAST = ("--samples", "10", "--solver", "fast", "--no-cache", "--no-compensate")


def with_batch(model: ir.Model) -> ir.Model:
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = ir.Shape(["n", *list(value.shape or ())[1:]])
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a dynamic batch, and `out`: its package, measured."""
    path = tmp_path_factory.mktemp("cpu")
    ir.save(with_batch(residual([1, 3, 17, 15], 32)), path / "model.onnx")
    done = prunec("compile", "model.onnx", *TARGET, *FAST, "-o", "out", "--json", cwd=path)
    assert done.code == 0, done.err
    (path / "answer.json").write_text(done.out)
    return path


def document(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_package_is_checked_and_measured(folder: Path) -> None:
    answer = document(folder / "answer.json")
    lowering = answer["verification"]["lowering"]
    assert lowering["passed"] and 0 < lowering["max_rel"] <= lowering["tolerance"] == 1e-5
    measured = document(folder / "out" / "measurements.json")
    assert set(measured["contenders"]) == {"dense_onnxruntime", "pruned_onnxruntime", "prunec", "prunec_dense"}
    assert measured["protocol"]["subject"] == "prunec"
    assert set(measured["speedup"]) == {"vs_dense_onnxruntime", "vs_pruned_onnxruntime", "vs_prunec_dense"}
    sparse = [layer for layer in measured["layers"] if layer["pattern"] == "block:16x1"]
    assert len(sparse) == 2
    for layer in sparse:
        assert layer["density"] == 0.25 and layer["chosen"] == "sparse"
        assert layer["dense_us"] > 0 and layer["sparse_us"] > 0 and 0 < layer["peak_share"] < 1
    assert not {w["code"] for w in answer["warnings"]} & {"PC226", "PC456", "PC457"}
    own = {name for name in answer["manifest"]["files"] if name.startswith("cpu/")}
    assert own == {f"cpu/{name}" for name in ("libmodel.so", "model.weights", "prunec.h", "example.c", "parts.json")}


def test_load_runs_the_compiled_model(folder: Path) -> None:
    x = np.random.default_rng(0).standard_normal((1, 3, 17, 15)).astype(np.float32)
    compiled = public.load(folder / "out", runtime="prunec", threads=2).run({"x": x})
    wanted = public.load(folder / "out", runtime="onnxruntime").run({"x": x})
    for name, array in wanted.items():
        assert (
            compiled[name].shape == array.shape and np.abs(compiled[name] - array).max() <= 1e-5 * np.abs(array).max()
        )
        assert not np.array_equal(compiled[name], array)  # or one of the two did not run what it says
    for bad, code in (({"x": x[:, :2]}, "PC614"), ({"y": x}, "PC614"), ({"x": np.where(x > 2, np.nan, x)}, "PC621")):
        with pytest.raises(PrunecError, match=code):
            public.load(folder / "out", runtime="prunec").run(bad)
    with pytest.raises(PrunecError, match="PC510"):
        public.load(folder / "out", threads=0)
    with pytest.raises(PrunecError, match="PC619"):
        public.load(folder / "out", runtime="magic")  # type: ignore[arg-type]


def test_the_slower_one_is_not_the_default(folder: Path) -> None:
    from dataclasses import replace

    package = public.load(folder / "out")
    assert package.measurements is not None

    def default(low: float, high: float) -> str:
        found = package.measurements.to_json()  # type: ignore[union-attr]
        found["speedup"]["vs_pruned_onnxruntime"] = {"median": (low + high) / 2, "ci95": [low, high]}
        return replace(package, measurements=Measurements.from_json(found)).default_runtime

    assert [default(0.5, 0.9), default(0.9, 1.1), default(1.2, 1.3)] == ["onnxruntime", "prunec", "prunec"]


def test_a_slower_package_says_so(folder: Path) -> None:
    found = public.load(folder / "out").measurements
    assert found is not None

    def said(threads: int, median: float) -> str:
        document = found.to_json()
        document["protocol"]["threads"] = threads
        document["speedup"]["vs_pruned_onnxruntime"] = {"median": median, "ci95": [median - 0.1, median + 0.1]}
        return " ".join(str(each) for each in not_default(Measurements.from_json(document)))

    assert "PC458" in said(1, 0.8) and "on 1 thread," in said(1, 0.8) and "on 2 threads," in said(2, 0.8)
    assert said(1, 1.0) == said(2, 1.2) == ""


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two CPUs")
@pytest.mark.slow
def test_two_threads_are_compiled_checked_and_measured(folder: Path) -> None:
    """Whichever run time was faster on two threads is the default, and a warning goes with ONNX Runtime."""
    options = ("--threads", "2", "--include", "*")  # zeros whether they pay or not: on a busy machine they may not
    done = prunec("compile", "model.onnx", *TARGET, *FAST, *options, "-o", "two", "--json", cwd=folder)
    assert done.code == 0, done.err
    measured = document(folder / "two" / "measurements.json")
    assert measured["protocol"]["threads"] == 2
    is_slower = measured["speedup"]["vs_pruned_onnxruntime"]["ci95"][1] < 1
    assert is_slower == ("PC458" in {warning["code"] for warning in done.json["warnings"]})
    package = public.load(folder / "two", threads=2)
    assert package.default_runtime == ("onnxruntime" if is_slower else "prunec")
    x = np.random.default_rng(0).standard_normal((1, 3, 17, 15)).astype(np.float32)
    other = public.load(folder / "two", threads=2, runtime="prunec" if is_slower else "onnxruntime")
    for name, array in package.run({"x": x}).items():
        difference = np.abs(array - other.run({"x": x})[name]).max()
        assert 0 < difference <= 1e-5 * np.abs(array).max()  # the two run times differ, in the last digits


def test_it_runs_without_tvm(folder: Path) -> None:
    script = (
        "import sys; sys.modules['tvm'] = None; import numpy as np, prunec\n"
        "print(prunec.load('out', runtime='prunec').run({'x': np.ones((1, 3, 17, 15), np.float32)}))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_verify_and_bench_look_at_the_compiled_model(folder: Path, tmp_path: Path) -> None:
    assert prunec("verify", "out", cwd=folder).code == 0
    done = prunec("bench", "out", "--source", "model.onnx", "--blocks", "6", "--json", cwd=folder)
    assert done.code == 0, done.err
    assert set(done.json["contenders"]) == {"dense_onnxruntime", "pruned_onnxruntime", "prunec", "prunec_dense"}
    assert len(done.json["layers"]) == len(document(folder / "out" / "measurements.json")["layers"])
    alone = prunec("bench", "out", "--blocks", "6", "--json", cwd=folder)
    assert set(alone.json["contenders"]) == {"pruned_onnxruntime", "prunec"}
    assert set(alone.json["speedup"]) == {"vs_pruned_onnxruntime"}
    for layer in alone.json["layers"]:
        assert "dense_us" not in layer and 0 < layer["peak_share"] < 1


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two CPUs")
@pytest.mark.slow
def test_bench_shows_layers_on_two_threads(folder: Path) -> None:
    """The share of the peak is that of both threads, in the table as in the document."""
    done = prunec("bench", "out", "--source", "model.onnx", "--blocks", "6", "--threads", "2", cwd=folder)
    assert done.code == 0, done.err
    assert "2 threads" in done.out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.out.splitlines() if "block:16x1" in line]
    assert len(rows) == 2
    for _, _, density, dense, own, rate, share in rows:
        assert density == "25.0 %" and dense.endswith("µs") and own.endswith("µs")
        assert float(rate) > 0 and 0 < float(share.removesuffix(" %")) < 100


@pytest.mark.slow
def test_bench_without_the_generator(folder: Path) -> None:
    """No dense twin and no peak, and nothing that claims to be one."""
    script = (
        "import importlib.util as u, sys; sys.modules['tvm'] = None; found = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'tvm' else found(name, *rest)\n"
        "import prunec; measured = prunec.bench('out', source='model.onnx', blocks=6)\n"
        "layers = measured.layers\n"
        "print(sorted(measured.contenders), {l.peak_share for l in layers}, {l.dense_us for l in layers})"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['dense_onnxruntime', 'prunec', 'pruned_onnxruntime'] {None} {None}"


def test_the_same_compile_gives_the_same_bytes(folder: Path) -> None:
    done = prunec("compile", "model.onnx", *TARGET, *FAST, "-o", "again", "--no-measure", cwd=folder)
    assert done.code == 0, done.err
    hashes = document(folder / "out" / "manifest.json")["files"]
    assert document(folder / "again" / "manifest.json")["files"] == hashes


def test_operators_without_code_run_in_onnx_runtime(tmp_path: Path) -> None:
    ir.save(residual([1, 3, 8, 8], 32, with_pool=True), tmp_path / "model.onnx")
    done = prunec("compile", "model.onnx", *TARGET, *FAST, "-o", "out", "--no-measure", "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    (warning,) = (w for w in done.json["warnings"] if w["code"] == "PC456")
    assert "LpPool (no generated code for this operator)" in warning["message"]
    parts = document(tmp_path / "out" / "cpu" / "parts.json")
    assert [part["kind"] for part in parts["parts"]] == ["generated", "onnxruntime", "generated"]
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    found, wanted = (public.load(tmp_path / "out", runtime=r).run({"x": x}) for r in ("prunec", "onnxruntime"))
    for name, array in wanted.items():
        assert np.abs(found[name] - array).max() <= 1e-5 * np.abs(array).max()
    assert "cannot be used from C as a whole" in (tmp_path / "out" / "README.txt").read_text()


def test_refusals(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '<ir_version: 9, opset_import: ["" : 17]> m (float[n, t, 4] x) => (float[n, t, 4] y) { y = Relu(x) }'
    ir.save(ir.from_onnx_text(text), tmp_path / "free.onnx")
    shapes = prunec("compile", "free.onnx", "--target", "cpu", "--sparsity", "0.5", cwd=tmp_path)
    refuses(shapes, "PC452")
    assert "--input-shape x=1,N,4" in shapes.err
    b = Builder(0)
    weights = [b.weight(1, 64, 16), b.weight(1, 64, 16)]
    b.output(b.op("LSTM", [b.input("x", [3, 1, 16]), *weights], 3, hidden_size=16, clip=1.0)[0])
    ir.save(b.model(), tmp_path / "foreign.onnx")
    refuses(prunec("compile", "foreign.onnx", *TARGET, cwd=tmp_path), "PC454")
    refuses(prunec("compile", "model.onnx", *TARGET, "--pattern", "2:4", cwd=folder), "PC403")
    refuses(
        prunec("compile", "model.onnx", *TARGET, "--shape-range", "x=1x3x17x15:1x3x17x15:2x3x17x15", cwd=folder),
        "PC452",
    )
    refuses(prunec("compile", "model.onnx", *TARGET, "--precision", "fp32", cwd=folder), "PC440")
    refuses(prunec("compile", "model.onnx", *TARGET, "--tune", "much", cwd=folder), "PC463")
    refuses(prunec("compile", "model.onnx", *TARGET, "--tune", "quick", "--no-build", cwd=folder), "PC463")
    refuses(prunec("compile", "model.onnx", "--sparsity", "0.5", "--tune", "quick", cwd=folder), "PC440")
    monkeypatch.setattr("prunec.backends.cpu.isa.cpu_flags", lambda: frozenset(AVX2.flags))
    wide = ("--target", "x86-avx512", "--sparsity", "0.75", *FAST, "-o", "wide")
    refuses(prunec("compile", "model.onnx", *wide, cwd=folder), "PC451")
    done = prunec("compile", "model.onnx", *wide, "--no-build", "--no-measure", "--json", cwd=folder)
    assert done.code == 0 and "PC457" in {w["code"] for w in done.json["warnings"]}, done.err
    assert "lowering" not in done.json["verification"]
    with pytest.raises(PrunecError, match="PC451"):
        public.load(folder / "wide", runtime="prunec").run({"x": np.zeros((1, 3, 17, 15), np.float32)})


def test_explain_says_what_is_zero(folder: Path) -> None:
    done = prunec("explain", "out/model.onnx", "--target", "cpu", "--json", cwd=folder)
    assert done.code == 0, done.err
    assert sum(layer["sparse_now"] for layer in done.json["layers"]) == 2
    table = prunec("explain", "out/model.onnx", "--target", "cpu", cwd=folder).out
    assert "2 are block:16x1 already" in table and "2:4" not in table


def test_another_targets_package_has_nothing_compiled(folder: Path) -> None:
    assert (
        prunec("compile", "model.onnx", "--sparsity", "0.5", *FAST[:2], "--no-measure", "-o", "plain", cwd=folder).code
        == 0
    )
    package = public.load(folder / "plain")
    assert package.default_runtime == "onnxruntime" and "cpu" not in files(folder / "plain")
    with pytest.raises(PrunecError, match="PC619"):
        public.load(folder / "plain", runtime="prunec").run({"x": np.zeros((1, 3, 17, 15), np.float32)})


def test_the_isa_is_recorded(folder: Path) -> None:
    assert document(folder / "out" / "cpu" / "parts.json")["isa"] == host_isa().name
