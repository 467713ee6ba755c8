"""Embedding tables get zeros where they are named, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto

from prunec.frontend.onnx import load
from prunec.graph.shapes import constant
from prunec.passes.sparsify.embeddings import embeddings
from prunec.patterns import parse
from prunec.plan.layers import choose_layers
from tests.cli.helpers import prunec, refuses
from tests.graph.builder import Builder
from tests.graph.checks import prepare

ROWS, WIDTH = 40, 16


def network(*, shared: bool = False) -> ir.Model:
    b = Builder(seed=2)
    table = b.weight(ROWS, WIDTH, name="table")
    ids = b.input("ids", [4, 6], TensorProto.INT64)
    y = b.op("Gather", [table, ids])
    if shared:
        y = b.op("Add", [y, b.op("Gather", [table, b.op("Mul", [ids, b.const(np.array(2))])])])
    y = b.linear(b.relu(b.linear(y, 32)), WIDTH)
    b.output(b.linear(b.relu(y), 8))
    return b.model()


def ids(folder: Path) -> str:
    """Low numbers often, those from 30 on never."""
    random = np.random.default_rng(0)
    np.savez(folder / "ids.npz", ids=np.minimum(random.geometric(0.15, (64, 6)), 29).astype(np.int64))
    return "ids.npz"


def compile_table(folder: Path, *options: str) -> tuple[np.ndarray, dict[str, object]]:
    ir.save(network(), folder / "model.onnx")
    command = ("compile", "model.onnx", "--calib", ids(folder), "--samples", "64", "--no-measure", "--solver", "fast")
    done = prunec(*command, *options, "--include", "table", "--include", "*matmul*", "-o", "out", "--json", cwd=folder)
    assert done.code == 0, done.err
    patterns = done.json["verification"]["patterns"]
    assert patterns["passed"]
    record = next(layer for layer in patterns["layers"] if layer["tensor"] == "table")
    model = load(folder / "out" / "model.onnx").model
    found = constant(next(node for node in model.graph if node.op_type == "Gather").inputs[0])
    assert found is not None
    return found, record


def dense_table() -> np.ndarray:
    found = constant(network().graph.initializers["table"])
    assert found is not None
    return found


def test_rows_that_are_read_often_keep_more(tmp_path: Path) -> None:
    found, record = compile_table(tmp_path, "--pattern", "unstructured", "--sparsity", "0.5")
    kept = (found != 0).mean(axis=1)
    assert 0.49 < kept.mean() <= 0.5 and kept[1:8].min() > 2 * kept[30:].mean() > 0
    assert np.array_equal(found[found != 0], dense_table()[found != 0])
    assert record["method"] == "frequency" and "error" not in record
    (note,) = record["notes"]  # type: ignore[misc]
    assert note.startswith("magnitude by how often rows are read: ") and note.endswith("others count once")


def test_inside_a_row_the_largest_stay(tmp_path: Path) -> None:
    found, _ = compile_table(tmp_path, "--pattern", "2:4")
    groups, dense = (np.abs(array.reshape(-1, 4)) for array in (found, dense_table()))
    assert np.array_equal(np.sort(groups, axis=1)[:, 2:], np.sort(dense, axis=1)[:, 2:])


def test_layers_behind_a_table_make_up_for_it(tmp_path: Path) -> None:
    """They are fitted to what the dense model gives, on what the pruned table gives."""
    compile_table(tmp_path, "--pattern", "unstructured", "--sparsity", "0.5")
    solved = json.loads((tmp_path / "out" / "verification.json").read_text())["quality"]
    compile_table(tmp_path, "--pattern", "unstructured", "--sparsity", "0.5", "--no-compensate", "--force")
    masked = json.loads((tmp_path / "out" / "verification.json").read_text())["quality"]
    assert solved["pruned"] > masked["pruned"]


@pytest.mark.parametrize("include", [[], ["*"], ["*matmul*"]])
def test_tables_have_to_be_named(include: list[str]) -> None:
    plans = choose_layers(prepare(network())[0], parse("2:4"), 0.5, include=include)
    table = next(plan for plan in plans if plan.tensor == "table")
    assert table.pattern == "dense" and table.why == "embedding: rows are looked up; --include its name gives it zeros"
    assert any(plan.pattern == "2:4" for plan in plans)


def test_a_table_that_others_read_too_is_left_alone(tmp_path: Path) -> None:
    assert [table.is_shared for table in embeddings(prepare(network(shared=True))[0]).values()] == [True, True]
    ir.save(network(shared=True), tmp_path / "model.onnx")
    done = prunec("compile", "model.onnx", "--pattern", "2:4", "--include", "table", "-o", "out", cwd=tmp_path)
    refuses(done, "PC225")
    assert "its table is shared with other nodes" in done.err


def test_an_interrupted_run_with_a_table_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PRUNEC_CACHE_MB", "10")
    first, record = compile_table(tmp_path, "--pattern", "2:4")
    again, other = compile_table(tmp_path, "--pattern", "2:4", "--force")
    assert np.array_equal(first, again) and record == other
