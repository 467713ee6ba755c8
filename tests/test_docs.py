"""Documentation is run: commands and options exist, links lead somewhere, the examples of docs/extending.md work."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from prunec.criteria import ScoreContext
from prunec.graph import analyse
from prunec.graph import rules as rule_table
from prunec.passes.canonicalise import canonicalise

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands() -> list[list[str]]:
    """Every `prunec …` line of the README, with continued lines joined and comments dropped."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^ {4}(prunec .*)$", text, flags=re.MULTILINE)
    return [shlex.split(line.split("  #")[0].split(" > ")[0])[1:] for line in lines]


def help_text(command: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "prunec", command, "--help"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"prunec {command}: {result.stderr}"
    return result.stdout


def test_readme_shows_commands() -> None:
    assert {words[0] for words in commands()} >= {"compile", "inspect", "explain", "plan", "verify", "bench", "zoo"}


@pytest.mark.parametrize("command", sorted({words[0] for words in commands()}))
def test_commands_and_options_of_the_readme_exist(command: str) -> None:
    text = help_text(command)
    for words in commands():
        for word in words:
            if words[0] == command and word.startswith("--"):
                assert word in text, f"prunec {command} has no {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent.name != "decisions"], ids=lambda page: page.name)
def test_files_that_pages_name_exist(page: Path) -> None:
    for name in re.findall(
        r"`((?:prunec|passes|models|benchmarks|backends|tests|docs)/[\w/.]+)`", page.read_text(encoding="utf-8")
    ):
        assert (ROOT / name).exists(), f"{page.name} names {name}"


def example(first_line: str) -> dict[str, object]:
    """Names that one code block of docs/extending.md defines."""
    blocks = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/extending.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    (block,) = (block for block in blocks if block.startswith(first_line))
    names: dict[str, object] = {}
    exec(block, names)  # the page's own code is what is tested
    return names


def scaled() -> ir.Model:
    rng = np.random.default_rng(0)
    shapes = {"w1": (8, 3, 3, 3), "s": (8,), "w2": (4, 8, 3, 3)}
    weights = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="first"),
        helper.make_node("Scale", ["a", "s"], ["b"], name="scale", domain="my.domain"),
        helper.make_node("Conv", ["b", "w2"], ["y"], name="second"),
    ]
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 8, 6, 6]) for n in ("a", "b")]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 4, 4])],
        weights,
        value_info=infos,
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("my.domain", 1)]
    return ir.from_proto(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9))


def test_the_rule_example_frees_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    model = canonicalise(scaled())
    before = [g.pinned.code for g in analyse(model).groups if g.pinned is not None]
    assert before == ["PC101", "PC102"]
    rule = example("# prunec/graph/rules/scale.py")["Scale"]
    original = rule_table.rule_for
    monkeypatch.setattr(
        "prunec.graph.analysis.rule_for",
        lambda node: rule() if node.op_type == "Scale" else original(node),  # type: ignore[operator]
    )
    free = [g for g in analyse(model).groups if g.pinned is None]
    assert [g.size for g in free] == [8]
    assert {m.tensor for m in free[0].members} == {"w1", "s", "w2"}


def test_the_criterion_example_scores() -> None:
    model = canonicalise(scaled())
    analysis = analyse(model)
    criterion = example("# prunec/criteria/peak.py")["Peak"]()  # type: ignore[operator]
    scores = criterion.score(analysis.groups[0], ScoreContext(model, analysis))
    weight = model.graph.initializers["w1"].const_value.numpy()  # type: ignore[union-attr]
    assert np.allclose(scores, np.abs(weight).max(axis=(1, 2, 3)))


def test_recipes_are_yaml_with_a_description() -> None:
    files = sorted((ROOT / "prunec/recipes").glob("*.yaml"))
    assert files
    for file in files:
        assert yaml.safe_load(file.read_text(encoding="utf-8"))["description"]


@pytest.mark.torch
def test_the_torch_function_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="needs the [torch] extra")
    from prunec.torch import operators
    from prunec.torch.from_ir import to_graph_module

    table: dict[str, Any] = example("# prunec/torch/operators/reverse.py")["OPERATORS"]  # type: ignore[assignment]
    for function in table.values():
        function.__module__ = __name__  # a file would have given it one
    known = operators.operators()
    own = {name: operators._describe(function, None) for name, function in table.items()}
    monkeypatch.setattr("prunec.torch.from_ir.operator_for", lambda n: (known | own).get(f"{n.domain}::{n.op_type}"))
    node = helper.make_node("Reverse", ["x", "axes"], ["y"], domain="my.domain")
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 3]) for n in ("x", "y")]
    axes = [numpy_helper.from_array(np.array([1], np.int64), "axes")]
    graph = helper.make_graph([node], "g", infos[:1], infos[1:], axes)
    model = ir.from_proto(onnx.helper.make_model(graph, opset_imports=[helper.make_opsetid("my.domain", 1)]))
    x = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(to_graph_module(model)(x), x.flip(1))


@pytest.mark.torch
@pytest.mark.usefixtures("one_registry")
def test_the_torch_section_of_the_readme_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs the [torch] extra")
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("### From torch")[2].partition("\n## ")[0]
    code = "\n".join(line[4:] for line in text.splitlines() if line.startswith("    ") or not line)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code, names)  # the page's own code is what is tested
    assert names["pruned"].kind == names["again"].kind == "module"
    assert names["pruned"].module[3].out_channels < 64
    assert (tmp_path / "pruned.pt").exists() and (tmp_path / "plan.json").exists()
