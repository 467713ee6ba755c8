"""`inspect` and `explain`."""

from __future__ import annotations

from pathlib import Path

import prunec as package
from tests.cli.helpers import process, prunec, refuses


def test_json_is_the_contract(folder: Path) -> None:
    done = prunec("inspect", "model.onnx", "--json", cwd=folder)
    document = done.json
    assert done.code == 0 and document["model"] == "model.onnx" and document["nodes"] == 10
    by_size = {group["size"]: group for group in document["groups"]}
    assert set(by_size) == {16, 32, 10}
    assert {"id", "size", "class", "members", "cost_share", "pinned"} == set(by_size[16])
    assert by_size[16]["class"] == "A" and by_size[16]["pinned"] is None
    assert all({"tensor", "axis"} <= set(member) for member in by_size[16]["members"])
    assert set(by_size[10]["pinned"]) == {"code", "node", "reason"} and by_size[10]["pinned"]["code"] == "PC102"
    assert sum(group["cost_share"] for group in document["groups"]) <= 1 + 1e-9


def test_python_returns_what_the_command_prints(folder: Path) -> None:
    done = process("inspect", "model.onnx", "--json", cwd=folder)
    assert package.inspect(folder / "model.onnx").to_json() == done.json


def test_format_json_is_the_same_document(folder: Path) -> None:
    formatted = prunec("inspect", "model.onnx", "--format", "json", cwd=folder)
    assert formatted.json == prunec("inspect", "model.onnx", "--json", cwd=folder).json


def test_text_is_a_table_on_stdout(folder: Path) -> None:
    done = prunec("inspect", "model.onnx", cwd=folder)
    assert done.code == 0 and done.err == ""
    assert "g0" in done.out and "2 of 3 groups can be cut" in done.out


def test_dot_has_every_group_and_escapes_names(folder: Path) -> None:
    done = prunec("inspect", "model.onnx", "--format", "dot", cwd=folder)
    assert done.out.startswith('digraph "model.onnx" {') and done.out.rstrip().endswith("}")
    assert all(f'"group:g{i}" [shape=ellipse' in done.out for i in range(3))


def test_explain_answers_for_a_node_and_for_its_weight(folder: Path) -> None:
    members = prunec("inspect", "model.onnx", "--json", cwd=folder).json["groups"][0]["members"]
    producers = [member for member in members if member["role"] == "producer"]
    by_node = prunec("explain", "model.onnx", producers[0]["node"], "--json", cwd=folder).json
    by_tensor = process("explain", "model.onnx", producers[0]["tensor"], "--json", cwd=folder).json
    assert by_node == by_tensor
    (part,) = by_node["parts"]
    assert part["does"] == "makes" and part["coupled_with"] == [producers[1]["node"]]
    assert "They can be cut, together with" in by_node["verdict"][0]
    assert by_node == package.explain(folder / "model.onnx", producers[0]["node"]).to_json()


def test_explain_says_why_a_layer_stays(folder: Path) -> None:
    groups = prunec("inspect", "model.onnx", "--json", cwd=folder).json["groups"]
    pinned = next(group for group in groups if group["pinned"])
    done = prunec("explain", "model.onnx", pinned["members"][0]["node"], cwd=folder)
    assert "They stay: " in done.out and "[PC102]" in done.out


def test_explain_a_layer_without_weights(folder: Path) -> None:
    relu = next(
        name for name in prunec("explain", "model.onnx", "zzz", cwd=folder).err.split() if name.startswith("relu")
    ).rstrip(",")
    document = prunec("explain", "model.onnx", relu, "--json", cwd=folder).json
    assert [part["does"] for part in document["parts"]] == ["passes"]


def test_explain_an_unknown_layer_names_what_there_is(folder: Path) -> None:
    refuses(prunec("explain", "model.onnx", "nope", cwd=folder), "PC120")


def test_input_shape_that_does_not_fit(folder: Path) -> None:
    refuses(prunec("inspect", "model.onnx", "--input-shape", "x=1,3,13,13", cwd=folder), "PC017")
    refuses(prunec("inspect", "model.onnx", "--input-shape", "x", cwd=folder), "PC016")
