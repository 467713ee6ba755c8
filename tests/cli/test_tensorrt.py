"""`--target tensorrt-2:4` from the command line: refusals, packages made without a GPU, what they say of themselves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from tests.cli.helpers import Done, files, prunec, refuses
from tests.graph.builder import Builder

TARGET = ("--target", "tensorrt-2:4")
FAST = ("--samples", "10", "--solver", "fast", "--no-cache")


def write_model(folder: Path) -> None:
    """Two layers that TensorRT is expected to run sparse, a narrow one, a stem and a head."""
    b = Builder(0)
    x = b.input("x", [2, 3, 8, 8])
    y = b.relu(b.conv(b.relu(b.conv(x, 32)), 128))
    y = b.relu(b.conv(b.relu(b.conv(y, 128)), 16))
    head = b.op("Flatten", [b.op("GlobalAveragePool", [y])])
    b.output(b.gemm(head, 10))
    ir.save(b.model(), folder / "model.onnx")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """A folder with the model and its package `out`, which tests leave as they are, and what the compile said."""
    place = tmp_path_factory.mktemp("made")
    write_model(place)
    return place, prunec("compile", "model.onnx", *TARGET, "--no-build", *FAST, "-o", "out", "--json", cwd=place)


def document(path: Path) -> Any:
    return json.loads(path.read_text())


def test_without_tensorrt_a_compile_says_what_to_install_or_to_leave_out(folder: Path) -> None:
    from importlib.util import find_spec

    if find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is installed here")
    done = prunec("compile", "model.onnx", *TARGET, cwd=folder)
    refuses(done, "PC430")
    assert "pip install 'prunec[tensorrt]'" in done.err and "--no-build" in done.err
    assert not (folder / "model.pruned").exists()


def test_a_package_made_without_a_gpu(made: tuple[Path, Done]) -> None:
    folder, done = made
    assert done.code == 0, done.err
    found = done.json["verification"]["tensorrt"]
    assert not found["executed"] and "kernels" not in found
    assert {w["code"] for w in done.json["warnings"]} >= {"PC441"} and "PC226" not in done.err
    left = {layer["name"]: layer["reason"] for layer in found["left_dense"]}
    assert len(found["planned_sparse"]) == found["weights_proved"] == 2 and len(left) == 3
    assert sorted(left.values()) == [
        "eligible, but 16 outputs, sparse kernels are expected to win from 128",
        "head: no layer comes after it",
        "stem: 3 input channels",
    ]
    lowering = done.json["verification"]["lowering"]
    assert 0 < lowering["max_rel"] < 5e-3 and lowering["passed"]
    package = folder / "out"
    assert not (package / "measurements.json").exists()
    proof = document(package / "tensorrt/sparsity.json")
    assert proof["executed"] is False and "not executed here" in proof["note"]
    assert sorted(proof["planned"]) == sorted(found["planned_sparse"])
    proofs = [layer["proof"] for layer in proof["layers"] if "proof" in layer]
    assert len(proofs) == 2
    assert all(p["valid"] == p["runs_of_four"] > 0 and p["round_trip"] and p["dtype"] == "float16" for p in proofs)
    for name in ("README.md", "build.sh"):
        assert "ot executed" in (package / "tensorrt" / name).read_text(), name
    assert "Not executed here" in (package / "README.txt").read_text()
    assert "tensorrt/build.sh" in document(package / "manifest.json")["files"]
    report = (package / "report.html").read_text()
    assert "Not executed here" in report and "Sparse tensor cores" in report
    verified = prunec("verify", "out", "--source", "model.onnx", "--json", cwd=folder)
    assert verified.code == 0 and verified.json["weights_proved"] == 2


def test_verify_sees_a_shipped_weight_that_is_not_the_proved_one(made: tuple[Path, Done], tmp_path: Path) -> None:
    from prunec.backends.tensorrt.proving_again import verify_folder
    from prunec.diagnostics import GateError

    place = tmp_path / "tensorrt"
    shutil.copytree(made[0] / "out/tensorrt", place)
    assert verify_folder(place) == 2
    proof = document(place / "sparsity.json")
    model = ir.load(place / "model.onnx")
    tensor = next(layer["tensor"] for layer in proof["layers"] if layer["node"] == proof["planned"][0])
    value = model.graph.initializers[tensor]
    assert value.const_value is not None
    changed = value.const_value.numpy() * np.float16(2)
    value.const_value = ir.Tensor(changed, name=tensor)
    ir.save(model, place / "model.onnx")
    with pytest.raises(GateError, match=r"PC525.*other bytes"):
        verify_folder(place)
    value.const_value = ir.Tensor(np.ones_like(changed), name=tensor)
    ir.save(model, place / "model.onnx")
    with pytest.raises(GateError, match=r"PC525.*0 of"):
        verify_folder(place)


def test_planned_weights_of_the_shipped_graph_are_sparse_where_tensorrt_looks(made: tuple[Path, Done]) -> None:
    folder = made[0]
    done = prunec("explain", "out/tensorrt/model.onnx", *TARGET, "--json", cwd=folder)
    planned = document(folder / "out/tensorrt/sparsity.json")["planned"]
    assert [row["node"] for row in done.json["layers"] if row["sparse_now"]] == planned
    dense = prunec("explain", "out/tensorrt/dense.onnx", *TARGET, "--json", cwd=folder).json
    assert dense["sparse_now"] == 0 and dense["worthwhile"] == 2


def test_the_same_command_gives_the_same_bytes(made: tuple[Path, Done], folder: Path) -> None:
    done = prunec("compile", "model.onnx", *TARGET, "--no-build", *FAST, "-o", "out", cwd=folder)
    assert done.code == 0, done.err
    first, second = files(made[0] / "out"), files(folder / "out")
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] in ([], ["report.html"])


def test_a_plan_replays_and_an_edit_that_tensorrt_cannot_use_is_refused(folder: Path) -> None:
    done = prunec("plan", "model.onnx", *TARGET, *FAST, "-o", "p.json", cwd=folder)
    assert done.code == 0 and "weighing layers" in done.err and "timing" not in done.err  # nothing is timed here
    replay = ("compile", "model.onnx", "--plan", "p.json", *TARGET, "--no-build", "--no-cache", "--force", "-o", "out")
    assert prunec(*replay, cwd=folder).code == 0
    plan = document(folder / "p.json")
    assert plan["pattern"] == "2:4" and plan["target"] == "tensorrt-2:4"
    plan["layers"][0].update(pattern="2:4", level=0.5)
    (folder / "p.json").write_text(json.dumps(plan))
    refuses(prunec(*replay, cwd=folder), "PC204")
    refuses(prunec("compile", "model.onnx", "--plan", "p.json", "-o", "out2", cwd=folder), "PC221")


def test_int8_with_products_as_matmul(folder: Path) -> None:
    options = ("--precision", "int8", "--products", "matmul", "--include", "*", "--no-build")
    done = prunec("compile", "model.onnx", *TARGET, *options, *FAST, "-o", "out", "--json", cwd=folder)
    assert done.code == 0, done.err
    record = done.json["verification"]["tensorrt"]
    assert record["precision"] == "int8" and record["weights_proved"] == 4
    proof = document(folder / "out/tensorrt/sparsity.json")
    assert {layer["proof"]["dtype"] for layer in proof["layers"] if "proof" in layer} == {"int8"}
    assert "INT8" in (folder / "out/tensorrt/README.md").read_text()
    kinds = {node.op_type for node in ir.load(folder / "out/tensorrt/model.onnx").graph}
    assert "MatMul" in kinds and "Gemm" not in kinds and "QuantizeLinear" in kinds


def test_include_takes_layers_that_are_not_expected_to_be_faster(folder: Path) -> None:
    done = prunec(
        "compile", "model.onnx", *TARGET, "--no-build", *FAST, "--include", "*", "-o", "out", "--json", cwd=folder
    )
    assert done.code == 0, done.err
    assert len(done.json["verification"]["tensorrt"]["planned_sparse"]) == 4  # all but the stem


def test_where_no_layer_is_worthwhile_the_reasons_are_given(folder: Path) -> None:
    b = Builder(0)
    x = b.input("x", [1, 3, 8, 8])
    b.output(b.relu(b.conv(b.relu(b.conv(b.relu(b.conv(x, 16)), 16)), 16)))
    ir.save(b.model(), folder / "narrow.onnx")
    done = prunec("compile", "narrow.onnx", *TARGET, "--no-build", *FAST, cwd=folder)
    refuses(done, "PC225")
    assert "expected to win from 256" in done.err and "--include '*'" in done.err and "explain" in done.err


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ((*TARGET, "--pattern", "1:4"), "PC403"),
        ((*TARGET, "--pattern", "channel", "--flops", "0.5"), "PC403"),
        ((*TARGET, "--no-build", "--min-speedup", "1.5"), "PC222"),
        (("--pattern", "2:4", "--no-build"), "PC440"),
        (("--pattern", "2:4", "--shape-range", "x=1x3x8x8"), "PC440"),
        ((*TARGET, "--no-build", "--shape-range", "x=1"), "PC437"),
        ((*TARGET, "--no-build", "--shape-range", "x"), "PC437"),
        ((*TARGET, "--no-build", "--precision", "fp8"), "PC445"),
        ((*TARGET, "--dry-run", "--products", "conv"), "PC444"),
        (("--pattern", "2:4", "--precision", "fp8"), "PC440"),
        (("--target", "torch-tensorrt-2:4", "--no-build", "--precision", "int8"), "PC440"),
        (("--target", "torch-tensorrt-2:4", "--no-build", "--tune", "quick"), "PC440"),
        (("--target", "tensorrt-2:4", "--no-build", "--tune", "quick"), "PC440"),
    ],
)
def test_options_that_do_not_go_with_the_target(folder: Path, options: tuple[str, ...], code: str) -> None:
    refuses(prunec("compile", "model.onnx", *options, cwd=folder), code)


def free_batch(path: Path, source: Path) -> None:
    model = ir.load(source)
    for value in (*model.graph.inputs, *model.graph.outputs):
        assert value.shape is not None
        value.shape = ir.Shape(["batch", *list(value.shape)[1:]])
    ir.save(model, path)


def test_dynamic_shapes_need_a_range(folder: Path) -> None:
    free_batch(folder / "free.onnx", folder / "model.onnx")
    arguments = ("compile", "free.onnx", *TARGET, "--no-build", *FAST, "-o", "out")
    done = prunec(*arguments, cwd=folder)
    refuses(done, "PC435")
    assert "--shape-range x=1x3x8x8:8x3x8x8:32x3x8x8" in done.err
    done = prunec(*arguments, "--shape-range", "x=1x3x8x8:5x3x8x8:9x3x8x8", cwd=folder)
    assert done.code == 0, done.err
    assert document(folder / "out/tensorrt/shapes.json") == {"x": [[1, 3, 8, 8], [5, 3, 8, 8], [9, 3, 8, 8]]}
    assert "--optShapes=x:5x3x8x8" in (folder / "out/tensorrt/build.sh").read_text()
    with np.load(folder / "out/tensorrt/vectors.npz") as arrays:
        assert arrays["in:x"].shape == (5, 3, 8, 8)


def test_made_up_inputs_have_the_usual_shape_of_their_range(folder: Path) -> None:
    model = ir.load(folder / "model.onnx")
    (value,) = model.graph.inputs
    value.shape = ir.Shape(["n", 3, "height", "width"])
    model.graph.outputs[0].shape = ir.Shape(["n", 10])
    ir.save(model, folder / "free.onnx")
    arguments = ("compile", "free.onnx", *TARGET, "--no-build", *FAST, "-o", "out")
    done = prunec(*arguments, "--shape-range", "x=1x3x8x8:2x3x12x10:4x3x16x16", cwd=folder)
    assert done.code == 0, done.err
    with np.load(folder / "out/tensorrt/vectors.npz") as arrays:
        assert arrays["in:x"].shape == (2, 3, 12, 10)


def test_a_model_whose_layers_are_inside_branches_says_so(folder: Path) -> None:
    b = Builder(0)
    b.output(b.op("Relu", [b.input("x", [2, 8])]))
    ir.save(b.model(), folder / "empty.onnx")
    for include in ((), ("--include", "*")):
        done = prunec("compile", "empty.onnx", *TARGET, "--no-build", *FAST, *include, cwd=folder)
        refuses(done, "PC225")
        assert "its main graph has no layer" in done.err


def test_operators_that_tensorrt_does_not_have(folder: Path) -> None:
    b = Builder(0)
    x = b.input("x", [2, 3, 8, 8])
    b.output(b.contrib("Gelu", [b.conv(b.relu(b.conv(x, 128)), 128)]))
    ir.save(b.model(), folder / "contrib.onnx")
    done = prunec("compile", "contrib.onnx", *TARGET, "--no-build", *FAST, cwd=folder)
    refuses(done, "PC434")
    assert "com.microsoft::Gelu" in done.err


def test_explain_all_layers_or_one(folder: Path) -> None:
    done = prunec("explain", "model.onnx", *TARGET, "--json", cwd=folder)
    assert done.code == 0
    found = done.json
    assert (len(found["layers"]), found["eligible"], found["worthwhile"], found["sparse_now"]) == (5, 4, 2, 0)
    assert found["layers"][0]["why_not"] == "3 input channels are no multiple of 4"
    one = prunec("explain", "model.onnx", found["layers"][1]["node"], *TARGET, cwd=folder)
    assert one.code == 0 and "32 × 9" in one.out
    refuses(prunec("explain", "model.onnx", cwd=folder), "PC121")
    missing = prunec("explain", "no-such-model", cwd=folder)
    assert missing.code == 2 and "PC121" not in missing.err and "no-such-model" in missing.err
    refuses(prunec("explain", "model.onnx", "--target", "onnx", cwd=folder), "PC404")
    refuses(prunec("explain", "model.onnx", "nothing", *TARGET, cwd=folder), "PC120")


def test_targets_lists_it_with_what_it_needs(folder: Path) -> None:
    rows = {row["name"]: row for row in prunec("targets", "--json", cwd=folder).json["targets"]}
    assert rows["tensorrt-2:4"]["status"] == "available" and "--no-build" in rows["tensorrt-2:4"]["how"]
    shown = prunec("targets", cwd=folder).out
    assert "'prunec[tensorrt]'" in shown and "vnm:V:N:M" in shown  # neither markup nor an emoji


@pytest.mark.device
def test_with_a_gpu_the_three_arms_are_built_compared_and_measured(folder: Path) -> None:
    """Not executed where prunec is developed."""
    from prunec.backends.tensorrt import environment
    from prunec.diagnostics import PrunecError

    try:
        environment.check()
    except PrunecError as missing:
        pytest.skip(f"needs a GPU with TensorRT: {missing}")
    done = prunec("compile", "model.onnx", *TARGET, *FAST, "-o", "out", "--json", cwd=folder)
    assert done.code == 0, done.err
    record = done.json["verification"]["tensorrt"]
    assert record["executed"] and record["kernels"]["max_rel"] <= 0.03
    assert set(done.json["measurements"]["contenders"]) == {"tensorrt_dense", "tensorrt_zeros", "prunec"}
    assert not list((folder / "out").rglob("*.engine"))


def test_tensorrt_rtx_takes_the_package(folder: Path) -> None:
    from importlib.util import find_spec

    if find_spec("tensorrt_rtx") is None:
        pytest.skip("needs the [tensorrt-rtx] extra")
    done = prunec("compile", "model.onnx", *TARGET, "--no-build", *FAST, "-o", "out", "--json", cwd=folder)
    smoke = done.json["verification"]["tensorrt"]["smoke"]
    assert smoke["passed"] and smoke["architectures"] == ["SM80", "SM89"]
    shutil.rmtree(folder / "out")
