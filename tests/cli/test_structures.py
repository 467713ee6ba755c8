"""`--structures` on the command line, and in a recipe."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.helpers import prunec, refuses

FAST = ("--no-measure", "--samples", "16")


def test_a_block_goes_and_everything_says_so(folder: Path) -> None:
    done = prunec("inspect", "model.onnx", "--structures", "depth", "--json", cwd=folder)
    (block,) = done.json["blocks"]
    assert block["kind"] == "branch"
    shown = prunec("inspect", "model.onnx", "--structures", "depth", cwd=folder)
    assert block["name"] in shown.out
    planned = prunec("plan", "model.onnx", "--structures", "depth", "--flops", "0.9", "-o", "plan.json", cwd=folder)
    assert planned.code == 0 and block["name"] in planned.out
    arguments = ("--structures", "depth", "--flops", "0.9", *FAST, "-o", "out", "--dump", "dump")
    done = prunec("compile", "model.onnx", *arguments, cwd=folder)
    assert done.code == 0, done.err
    assert "0 groups and 1 blocks is exact" in " ".join(done.out.split())
    assert [b["name"] for b in json.loads((folder / "out" / "plan.json").read_text())["depth"]] == [block["name"]]
    report = (folder / "out" / "report.html").read_text()
    assert "Blocks removed" in report and block["name"] in report and "--structures depth" in report
    assert (folder / "dump" / "masked.onnx").exists() and (folder / "dump" / "cut.onnx").exists()


def test_stages_are_dumped_one_by_one(folder: Path) -> None:
    arguments = ("--structures", "channels,depth", "--flops", "0.5", *FAST, "-o", "out", "--dump", "dump", "--json")
    done = prunec("compile", "model.onnx", *arguments, cwd=folder)
    assert done.code == 0, done.err
    assert done.json["plan"]["structures"] == ["depth", "channels"]
    assert sorted(path.name for path in (folder / "dump").iterdir()) == sorted(
        ["canonical.onnx", "masked-depth.onnx", "cut-depth.onnx", "masked-channels.onnx", "cut-channels.onnx",
         "model.onnx"]
    )  # fmt: skip
    assert {trial["trial"].split(":")[0] for trial in done.json["proof"]} == {"depth", "channels"}


def test_a_recipe_may_name_structures(folder: Path) -> None:
    (folder / "mine.yaml").write_text("description: my own\ncriterion: l1\nstructures: depth\n")
    done = prunec("plan", "model.onnx", "--recipe", "mine.yaml", "--flops", "0.9", "--json", cwd=folder)
    assert done.code == 0, done.err
    assert done.json["structures"] == ["depth"] and done.json["criterion"] == "l1"
    (folder / "mine.yaml").write_text("description: my own\ncriterion: l1\nstructures: [deep]\n")
    refuses(prunec("plan", "model.onnx", "--recipe", "mine.yaml", "--flops", "0.9", cwd=folder), "PC216")


def test_an_edited_plan_needs_a_criterion_that_there_is(folder: Path) -> None:
    assert prunec("plan", "model.onnx", "--flops", "0.6", "-o", "plan.json", cwd=folder).code == 0
    plan = json.loads((folder / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps({**plan, "criterion": "vibes"}))
    refuses(prunec("compile", "model.onnx", "--plan", "plan.json", "-o", "out", cwd=folder), "PC203")


def test_structures_that_do_not_go_together(folder: Path) -> None:
    refuses(prunec("compile", "model.onnx", "--structures", "depth", "--sparsity", "0.5", cwd=folder), "PC217")
    refuses(prunec("inspect", "model.onnx", "--structures", "channels,head-width", cwd=folder), "PC216")
    done = prunec("plan", "model.onnx", "--flops", "0.6", "-o", "plan.json", cwd=folder)
    assert done.code == 0
    arguments = ("--plan", "plan.json", "--structures", "depth")
    refuses(prunec("compile", "model.onnx", *arguments, cwd=folder), "PC221")
