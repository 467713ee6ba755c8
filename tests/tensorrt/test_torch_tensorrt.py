"""`torch-tensorrt-2:4`: exported programs, shape rules, what the scripts do to a module, as far as a CPU shows it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from prunec.diagnostics import PrunecError
from tests.cli.helpers import files, prunec, refuses
from tests.graph.builder import Builder

torch = pytest.importorskip("torch", reason="needs the [torch] extra")

from prunec.backends.torch_tensorrt.scripts import compile_arms, semi_structured  # noqa: E402

pytestmark = pytest.mark.torch
TARGET = ("--target", "torch-tensorrt-2:4")
FAST = ("--no-build", "--samples", "10", "--solver", "fast", "--no-cache", "--include", "*")


def write_model(folder: Path) -> None:
    """A convolution, products in both orientations, one of a size that PyTorch's matrices cannot hold."""
    b = Builder(0)
    x = b.input("x", [4, 4, 8, 8])
    y = b.reshape(b.relu(b.conv(x, 16)), [4, 1024])
    y = b.relu(b.gemm(y, 64))
    y = b.relu(b.linear(b.reshape(y, [2, 2, 64]), 96))
    y = b.relu(b.linear(y, 40))
    b.output(b.linear(y, 32))
    ir.save(b.model(), folder / "model.onnx")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tests leave it as it is."""
    place = tmp_path_factory.mktemp("package")
    write_model(place)
    done = prunec("compile", "model.onnx", *TARGET, *FAST, "-o", "out", cwd=place)
    assert done.code == 0, done.err
    return place / "out"


def record(package: Path) -> Any:
    return json.loads((package / "verification.json").read_text())["tensorrt"]


def test_the_program_runs_and_its_weights_are_sparse(package: Path) -> None:
    found = record(package)
    assert not found["executed"] and found["weights_proved"] == len(found["planned_sparse"]) == 5
    lowering = json.loads((package / "verification.json").read_text())["lowering"]
    assert lowering["passed"] and lowering["max_rel"] <= 1e-4
    program = torch.export.load(package / "torch_tensorrt/module.pt2")
    with np.load(package / "torch_tensorrt/vectors.npz") as arrays:
        answer = program.module()(torch.from_numpy(arrays["in:x"])).detach().numpy()
        np.testing.assert_allclose(answer, next(a for k, a in arrays.items() if k[:4] == "out:"), rtol=1e-3, atol=1e-5)
    for row in found["semi_structured"]:
        if "parameter" in row:
            weight = program.state_dict[row["parameter"]].detach()
            weight = weight.t() if row["turned"] else weight
            assert ((weight != 0).reshape(len(weight), -1, 4).sum(-1) <= 2).all()
    dense = torch.export.load(package / "torch_tensorrt/dense.pt2")
    assert all((weight != 0).float().mean() > 0.9 for weight in dense.state_dict.values())


def test_layers_that_pytorch_can_hold_are_told_from_others(package: Path) -> None:
    rows = {row["name"]: row for row in record(package)["semi_structured"]}
    conv = next(row for name, row in rows.items() if name.startswith("conv"))
    assert conv["why_not"] == "PyTorch has sparse matrices only, this is a convolution" and not conv["libraries"]
    gemm = next(row for name, row in rows.items() if name.startswith("gemm"))
    assert gemm["libraries"] == ["cutlass", "cusparselt"] and gemm["turned"] is False
    products = [row for name, row in rows.items() if name.startswith("matmul")]
    assert [row.get("libraries", []) for row in products] == [["cutlass", "cusparselt"], [], []]
    assert products[1]["why_not"].startswith(
        "cutlass wants multiples of 32 × 64 in float16, this is 40 × 96; cusparselt"
    )
    assert all(row["turned"] for row in products)


def test_our_rules_are_those_of_torch() -> None:
    from torch.sparse import semi_structured as own

    tensors = {"cutlass": own.SparseSemiStructuredTensorCUTLASS, "cusparselt": own.SparseSemiStructuredTensorCUSPARSELT}
    for library, rules in semi_structured.RULES.items():
        for dtype, (rows, columns) in rules.items():
            theirs = tensors[library]._DTYPE_SHAPE_CONSTRAINTS[getattr(torch, dtype)]
            assert (rows, columns) == (theirs.sparse_min_rows, theirs.sparse_min_cols), (library, dtype)


@pytest.mark.parametrize(
    ("capability", "has_cusparselt", "library"),
    [((8, 0), True, "cusparselt"), ((8, 9), False, "cutlass"), ((9, 0), True, "cusparselt"), ((9, 0), False, None),
     ((7, 5), True, None)],
)  # fmt: skip
def test_the_library_follows_the_gpu(capability: tuple[int, int], has_cusparselt: bool, library: str | None) -> None:
    assert semi_structured.usable_library(capability, has_cusparselt=has_cusparselt) == library


def test_layers_follow_the_library() -> None:
    rows = [
        {"name": "a", "parameter": "p.a", "turned": True, "libraries": ["cutlass", "cusparselt"]},
        {"name": "b", "parameter": "p.b", "turned": False, "libraries": ["cusparselt"]},
        {"name": "c", "why_not": "PyTorch has sparse matrices only, this is a convolution"},
    ]
    assert semi_structured.fitting(rows, "cutlass") == {"p.a": True}
    assert semi_structured.fitting(rows, "cusparselt") == {"p.a": True, "p.b": False}


def chosen(package: Path) -> dict[str, bool]:
    rows = json.loads((package / "torch_tensorrt/sparsity.json").read_text())["semi_structured"]
    return semi_structured.fitting(rows, "cutlass")


def compressed(weight: Any) -> Any:
    """What `to_sparse_semi_structured` stores, taken apart again: CUTLASS's form works without a GPU."""
    from torch.sparse import _semi_structured_conversions as conversions

    half = weight.half()
    values, metadata = conversions.sparse_semi_structured_from_dense_cutlass(half)
    again = conversions.sparse_semi_structured_to_dense_cutlass(values, metadata)
    assert torch.equal(again, half) and values.shape[1] * 2 == weight.shape[1]
    return again.to(weight.dtype)


@pytest.mark.parametrize("convert", [lambda weight: weight, compressed])
def test_products_become_linear_layers_with_converted_weights(package: Path, convert: Any) -> None:
    place = package / "torch_tensorrt"
    before, after = (semi_structured.load(place, "module.pt2") for _ in range(2))
    weights = chosen(package)
    assert len(weights) == 2
    assert semi_structured.use_sparse(after, weights, convert) == []
    calls = [node for node in after.graph.nodes if node.target is torch.nn.functional.linear]
    assert len(calls) == 2
    with np.load(place / "vectors.npz") as arrays, torch.no_grad():
        data = torch.from_numpy(arrays["in:x"])
        assert torch.allclose(before(data), after(data), rtol=1e-2, atol=1e-3)


def test_a_parameter_that_no_product_reads_is_reported(package: Path) -> None:
    module = semi_structured.load(package / "torch_tensorrt", "module.pt2")
    (name,) = [name for name, turned in chosen(package).items() if not turned]
    assert semi_structured.use_sparse(module, {name: True}, lambda weight: weight) == [name]


def test_options_follow_what_torch_tensorrt_knows() -> None:
    old = compile_arms.settings(["sparse_weights", "enabled_precisions"], sparse=True)
    assert old["sparse_weights"] is True and old["enabled_precisions"] == {torch.float16, torch.float32}
    known = ["sparse_weights", "use_explicit_typing", "enable_autocast", "autocast_low_precision_type"]
    new = compile_arms.settings(known, sparse=False)
    assert new["sparse_weights"] is False and "enabled_precisions" not in new
    assert new["enable_autocast"] and new["autocast_low_precision_type"] is torch.float16


@pytest.mark.parametrize("script", ["compile_arms.py", "semi_structured.py"])
def test_copies_refuse_on_their_own_where_there_is_no_gpu(script: str, package: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, script]
    place = package / "torch_tensorrt"
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2 and "no CUDA GPU" in done.stderr and "Traceback" not in done.stderr


def test_the_same_command_gives_the_same_bytes(folder: Path, package: Path) -> None:
    again = prunec("compile", "model.onnx", *TARGET, *FAST, "-o", "again", cwd=folder)
    assert again.code == 0
    first, second = files(package), files(folder / "again")
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] in ([], ["report.html"])


def test_a_free_batch_stays_free_within_its_range(folder: Path) -> None:
    b = Builder(0)
    x = b.input("x", [4, 64])
    b.output(b.linear(b.relu(b.linear(b.relu(b.linear(x, 256)), 256)), 32))
    model = b.model()
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = ir.Shape(["batch", *list(value.shape or ())[1:]])
    ir.save(model, folder / "free.onnx")
    arguments = ("compile", "free.onnx", *TARGET, *FAST, "-o", "out")
    refuses(prunec(*arguments, cwd=folder), "PC435")
    done = prunec(*arguments, "--shape-range", "x=1x64:4x64:16x64", cwd=folder)
    assert done.code == 0, done.err
    module = torch.export.load(folder / "out/torch_tensorrt/module.pt2").module()
    assert module(torch.zeros(9, 64)).shape == (9, 32)


def test_shapes_that_torch_cannot_keep_free(monkeypatch: pytest.MonkeyPatch) -> None:
    from prunec.backends.torch_tensorrt import module

    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("\nConstraints violated (batch)! For more information …")

    monkeypatch.setattr(torch.export, "export", refuse)
    b = Builder(0)
    b.output(b.linear(b.input("x", [2, 8]), 8))
    with pytest.raises(PrunecError, match=r"PC442.*Constraints violated"):
        module.export(b.model(), {"x": np.zeros((2, 8), np.float32)}, {})


def test_what_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.util import find_spec

    from prunec.backends.base import BuildOptions
    from prunec.backends.torch_tensorrt.target import TorchTensorRT

    if find_spec("torch_tensorrt") is None:
        done = prunec("compile", "model.onnx", *TARGET, cwd=folder)
        refuses(done, "PC430")
        assert "prunec[torch-tensorrt]" in done.err and "--no-build" in done.err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PrunecError, match="PC030"):
        TorchTensorRT().check(BuildOptions(builds=False))


def test_a_module_goes_in_and_comes_out_pruned(tmp_path: Path) -> None:
    import prunec as package_of_prunec

    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 256), torch.nn.ReLU(), torch.nn.Linear(256, 8)
    )
    data = torch.randn(32, 64)
    found = package_of_prunec.compile(
        net, example_inputs=data[:32], target="torch-tensorrt-2:4", build=False, output=tmp_path / "out",
        calib=[data, data], samples=64, solver="fast", include=["*"], cache=False,
    )  # fmt: skip
    assert found.verification is not None and found.verification.tensorrt is not None
    assert found.verification.tensorrt.weights_proved == 3
    module = torch.export.load(tmp_path / "out/torch_tensorrt/module.pt2").module()
    assert module(data).shape == (32, 8)
    shutil.rmtree(tmp_path / "out")
