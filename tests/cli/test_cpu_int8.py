"""`--target cpu --precision int8`: the package, what is proved about it, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("tvm", reason="needs the [tvm] extra")

import prunec as package
from prunec.api.target_list import backend_for
from prunec.backends.cpu.int8_target import Int8Cpu
from prunec.backends.cpu.isa import cpu_flags, int8_isa
from prunec.diagnostics import PrunecError
from prunec.passes.canonicalise import canonicalise
from prunec.passes.sparsify import LayerPattern
from prunec.patterns import parse
from tests.backends.kernel_support import needs_x86
from tests.cli.helpers import prunec, refuses
from tests.cli.networks import residual
from tests.graph.builder import Builder

pytestmark = needs_x86
INT8 = ("--target", "cpu", "--precision", "int8", "--samples", "10")
DENSE = ("--flops", "1", "--pattern", "channel")
HALF = ("--sparsity", "0.5", "--calib", "data.npz", *INT8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, its data, and the package of it with half of the blocks gone."""
    folder = tmp_path_factory.mktemp("int8")
    ir.save(residual([1, 3, 9, 7], 16), folder / "model.onnx")
    images = np.random.default_rng(0).standard_normal((40, 3, 9, 7)).astype(np.float32)
    np.savez(folder / "data.npz", x=images)
    images[3, 0, 0, 0] = np.nan
    np.savez(folder / "nan.npz", x=images)
    return folder


@pytest.fixture(scope="module")
def out(folder: Path) -> Path:
    done = prunec("compile", "model.onnx", *HALF, "--no-measure", "-o", "out", "--json", cwd=folder)
    assert done.code == 0, done.err
    assert "PC486" not in {warning["code"] for warning in done.json["warnings"]}
    return folder / "out"


def test_blocks_are_zero_and_the_numbers_are_those_of_onnxruntime(out: Path) -> None:
    found = json.loads((out / "verification.json").read_text())
    assert found["lowering"]["passed"] and found["lowering"]["max_rel"] <= 1 / 255
    assert found["quantisation"]["precision"] == "int8" and len(found["quantisation"]["layers"]) == 4
    assert {layer["pattern"] for layer in found["patterns"]["layers"]} == {"block:4x4"}
    parts = json.loads((out / "cpu" / "parts.json").read_text())
    assert parts["isa"] == int8_isa().name and not parts["in_onnxruntime"]
    again = prunec("verify", "out", "--source", "model.onnx", cwd=out.parent)
    assert again.code == 0, again.err


def test_it_runs_and_quality_is_judged_in_8_bits(out: Path) -> None:
    found = json.loads((out / "verification.json").read_text())
    assert 0 < found["quality"]["drop"] < 0.2 and "--precision int8" in (out / "report.html").read_text()
    x = np.load(out.parent / "data.npz")["x"][:1]
    own, wanted = (
        next(iter(package.load(out, runtime=runtime).run({"x": x}).values())) for runtime in ("prunec", "onnxruntime")
    )
    assert np.abs(own - wanted).max() <= np.abs(wanted).max() / 255


def test_a_processor_without_the_instruction_gets_an_error(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunec.backends.cpu.isa.cpu_flags", lambda: cpu_flags() - {"avx512_vnni", "avx_vnni", "avx2"})
    x = np.load(out.parent / "data.npz")["x"][:1]
    with pytest.raises(PrunecError, match="PC451"):
        package.load(out, runtime="prunec").run({"x": x})


def test_blocks_that_its_kernels_do_not_skip_are_refused(folder: Path) -> None:
    done = prunec("compile", "model.onnx", *HALF, "--pattern", "block:16x1", "-o", "tall", cwd=folder)
    refuses(done, "PC403")
    assert "block:4x4" in done.err


@pytest.mark.slow
def test_a_quality_gate_counts_what_8_bits_cost(folder: Path) -> None:
    gate = ("--max-drop", "0", "--no-measure", "-o", "refused")
    done = prunec("compile", "model.onnx", *HALF, *gate, cwd=folder)
    assert done.code == 1 and not (folder / "refused").exists()


def test_data_with_nan_is_refused(folder: Path) -> None:
    options = (*DENSE, "--calib", "nan.npz", *INT8, "--no-measure", "-o", "nan")
    done = prunec("compile", "model.onnx", *options, cwd=folder)
    assert done.code == 2 and "NaN" in done.err and not (folder / "nan").exists()


def test_shapes_that_are_not_known_are_refused(folder: Path) -> None:
    b = Builder(0)
    b.output(b.conv(b.input("x", [1, 3, 8, 8]), 8))
    model = b.model()
    model.graph.inputs[0].shape, model.graph.outputs[0].shape = ir.Shape([1, 3, "h", 8]), ir.Shape([1, 8, "h", 8])
    ir.save(model, folder / "dynamic.onnx")
    done = prunec("compile", "dynamic.onnx", *DENSE, *INT8, "--no-measure", "-o", "dynamic", cwd=folder)
    refuses(done, "PC452")


@pytest.mark.slow
def test_it_is_timed_over_float_and_over_the_same_int8(folder: Path) -> None:
    done = prunec("compile", "model.onnx", *HALF, "--include", "*", "-o", "timed", "--json", cwd=folder)
    assert done.code == 0, done.err
    names = {"dense_onnxruntime", "pruned_onnxruntime", "dense_int8_onnxruntime", "prunec", "prunec_dense"}
    assert set(done.json["measurements"]["contenders"]) == names
    assert {"vs_dense_onnxruntime", "vs_pruned_onnxruntime"} <= done.json["measurements"]["speedup"].keys()
    layers = [layer for layer in done.json["measurements"]["layers"] if layer["pattern"] != "dense"]
    assert len(layers) >= 2 and all(layer["density"] < 0.8 and layer["chosen"] == "sparse" for layer in layers)
    done = prunec("bench", "timed", "--source", "model.onnx", "--json", cwd=folder)
    assert done.code == 0, done.err
    assert {"dense_onnxruntime", "pruned_onnxruntime", "prunec", "prunec_dense"} <= done.json["contenders"].keys()


def test_layers_are_timed_in_int8() -> None:
    """For a plan that leaves dense what gains nothing by zeros; refused once as if float32 had been asked for."""
    model = canonicalise(residual([1, 3, 9, 7], 16))
    name = [node.name for node in model.graph if node.op_type == "Conv"][1]
    backend = backend_for("cpu", "int8")
    assert backend is not None and name is not None
    found = backend.times(model, {name: LayerPattern(parse("block:4x4"), 0.5)}, 1, None, None)
    assert found[name].sparse_us > 0 and found[name].dense_us > 0


def test_layers_left_in_float_are_timed_so() -> None:
    """For plans that choose between the types, and for what conversions between them take."""
    model = canonicalise(residual([1, 3, 9, 7], 16))
    first, second, *_ = (node.name or "" for node in model.graph if node.op_type == "Conv")
    backend = backend_for("cpu", "mixed")
    assert isinstance(backend, Int8Cpu)
    made = backend.leaving({first}).form(model).graph
    assert f"{first}.weight.int8" not in made.initializers and f"{second}.weight.int8" in made.initializers
    between = backend.leaving({first}).between_us(model, (first, second), 1, None)
    assert 0 < between < 1e6
