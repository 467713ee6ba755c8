"""Depth, streams and head widths from the plan to the package: what goes, that it replays, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

import prunec
from prunec.api.opening import open_model
from prunec.api.stages import stages_of, tidied, whole
from prunec.diagnostics import PrunecError
from prunec.graph.cost import model_macs, parameter_count
from prunec.plan.budget import Budget
from prunec.plan.plan import Plan
from prunec.plan.replay import check_plan
from prunec.plan.structures import parse_structures, stage_budget
from tests.graph.builder import Builder
from tests.graph.micros_gates import network as network_of_experts
from tests.graph.micros_gates import one_hot_loop, softmax_stacked
from tests.graph.micros_residual import attention, feed_forward, layer_norm

WIDTH, TOKENS = 32, 5
FAST: dict[str, Any] = {"samples": 24, "measure": False}


def encoder(path: Path) -> Path:
    """Three post-norm layers; its output is its stream."""
    b = Builder(seed=4)
    x = layer_norm(b, wide(b, b.input("x", [1, TOKENS, 12])))
    for _ in range(3):
        x = layer_norm(b, b.op("Add", [wide(b, attention(b, x)), x]))
        x = layer_norm(b, b.op("Add", [wide(b, feed_forward(b, x)), x]))
    b.output(x)
    ir.save(b.model(), path)
    return path


def wide(b: Builder, x: str) -> str:
    return b.linear(x, WIDTH)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder(tmp_path_factory.mktemp("structures") / "encoder.onnx")


def answer(path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": np.ones((1, TOKENS, 12), np.float32)})[0])


@pytest.mark.parametrize(
    ("structures", "flops"),
    [
        ("depth", 0.7),
        ("head-width", 0.9),
        pytest.param("residual", 0.7, marks=pytest.mark.slow),
        pytest.param("depth,channels", 0.6, marks=pytest.mark.slow),
        ("channels,residual", 0.6),
    ],
)
def test_a_package_of_each(model: Path, tmp_path: Path, structures: str, flops: float) -> None:
    found = prunec.compile(model, structures=structures, flops=flops, output=tmp_path / "out", **FAST)
    assert found.verification is not None and found.verification.exactness is not None
    assert found.verification.exactness.class_a_max_rel <= 1e-5
    assert all(trial.float64 is not None and trial.float64 <= 1e-12 for trial in found.proof)
    assert found.plan.structures == parse_structures(structures)
    assert bool(found.plan.depth) == ("depth" in structures)
    assert (found.plan.head_width is not None) == ("head-width" in structures)
    dense, pruned = open_model(model).canonical, ir.load(tmp_path / "out" / "model.onnx")
    assert model_macs(pruned) <= flops * model_macs(dense)
    assert found.plan.realised.flops == pytest.approx(model_macs(pruned) / model_macs(dense), abs=1e-6)
    assert found.plan.realised.params == pytest.approx(parameter_count(pruned) / parameter_count(dense), abs=1e-6)
    assert not [node.name for node in pruned.graph if node.op_type == "Identity"]
    assert answer(tmp_path / "out" / "model.onnx").shape == (1, TOKENS, WIDTH)
    again = prunec.compile(model, plan=tmp_path / "out" / "plan.json", output=tmp_path / "again", **FAST)
    assert again.manifest == found.manifest
    assert prunec.verify(tmp_path / "out", source=model, samples=8).passed


def test_all_four_in_one_plan(model: Path, tmp_path: Path) -> None:
    made = prunec.plan(model, structures="depth,channels,residual,head-width", flops=0.35, samples=16).plan
    assert made.depth and made.head_width is not None
    opened = open_model(model)
    stages = stages_of(opened, made)
    assert [stage.name for stage in stages] == ["depth", "channels", "head-width"]
    final = tidied(stages[-1].after)
    assert model_macs(final) <= 0.35 * model_macs(opened.canonical)
    analysis, alive = whole(stages)
    after = {value.name: value for node in stages[-1].after.graph for value in node.outputs}
    for name, axes in analysis.value_axes.items():
        for axis, ids in enumerate(axes):
            if ids is not None and name in after:
                assert alive[ids].sum() == (after[name].shape or ())[axis], "composed masks have the widths of the cut"


def test_compensation_brings_the_model_back(model: Path, tmp_path: Path) -> None:
    """The mean of what went, rescaled norms and refitted layers, each kept only where held-out error falls."""
    errors = []
    for compensate in (False, True):
        out = tmp_path / str(compensate)
        found = prunec.compile(
            model, structures="depth,residual", flops=0.6, output=out, compensate=compensate, samples=100, measure=False
        )
        assert found.verification is not None and found.verification.quality is not None
        errors.append((found.verification.quality.others or {})["relative_error"])
    assert errors[1] < 0.9 * errors[0]
    document = json.loads((tmp_path / "True" / "verification.json").read_text())
    assert {"rescale", "lsq"} <= {record["method"] for record in document["compensation"]}


def test_a_plan_of_blocks_can_be_edited(model: Path, tmp_path: Path) -> None:
    made = prunec.plan(model, structures="depth", flops=0.5, output=tmp_path / "plan.json", samples=8).plan
    document = json.loads((tmp_path / "plan.json").read_text())
    document["depth"] = document["depth"][:1]
    (tmp_path / "plan.json").write_text(json.dumps(document))
    found = prunec.compile(model, plan=tmp_path / "plan.json", output=tmp_path / "out", **FAST)
    assert len(found.plan.depth) == 1 and found.plan.realised.flops > made.realised.flops
    assert "by hand" in found.plan.notes[-1]
    document["depth"][0]["name"] = "nothing"
    (tmp_path / "plan.json").write_text(json.dumps(document))
    with pytest.raises(PrunecError, match="PC204"):
        prunec.compile(model, plan=tmp_path / "plan.json", output=tmp_path / "out2", **FAST)


def test_a_plan_of_other_structures_is_refused_where_only_channels_can_be_cut(model: Path) -> None:
    made = prunec.plan(model, structures="depth", flops=0.8, samples=8).plan
    opened = open_model(model)
    with pytest.raises(PrunecError, match="PC219"):
        check_plan(made, opened.canonical, opened.analysis)


def test_excluded_layers_keep_their_blocks(model: Path) -> None:
    first = prunec.inspect(model, structures="depth").blocks[0]
    everything = {block.name for block in prunec.inspect(model, structures="depth").blocks}
    made = prunec.plan(model, structures="depth", flops=0.4, exclude=[first.name], samples=8).plan
    removed = {block.name for block in made.depth}
    assert removed and first.name not in removed and removed < everything
    assert not any(first.name in name.split("+") for name in removed), "a layer contains its branches"


def test_a_plan_file_from_before_there_were_structures(model: Path, tmp_path: Path) -> None:
    prunec.plan(model, flops=0.8, output=tmp_path / "plan.json", samples=8)
    document = json.loads((tmp_path / "plan.json").read_text())
    assert not {"structures", "depth", "head_width"} & set(document)
    assert Plan.load(tmp_path / "plan.json").structures == ("channels",)


def test_inspect_shows_streams_widths_and_blocks(model: Path) -> None:
    (pinned,) = [g for g in prunec.inspect(model).groups if g.kind == "C"]
    (free,) = [g for g in prunec.inspect(model, structures="residual").groups if g.pinned is None]
    assert pinned.pinned is not None and free.kind == "C" and free.size == pinned.size == WIDTH
    widths = prunec.inspect(model, structures="head-width").groups
    assert [group.size for group in widths] == [6, 6] * 3
    blocks = prunec.inspect(model, structures="depth").blocks
    assert [block.kind for block in blocks] == ["branch"] * 6 + ["layer"] * 3


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"structures": "head-with", "flops": 0.5}, "PC216"),
        ({"structures": "", "flops": 0.5}, "PC216"),
        ({"structures": "depth", "sparsity": 0.5}, "PC217"),
        ({"structures": "channels,head-width", "sparsity": 0.5}, "PC217"),
        ({"structures": "depth", "flops": 0.01}, "PC207"),
        ({"structures": "depth", "flops": 0.5, "include": ["nothing"]}, "PC218"),
    ],
)
def test_refusals(model: Path, options: dict[str, Any], code: str) -> None:
    with pytest.raises(PrunecError) as caught:
        prunec.plan(model, samples=8, **options)
    assert caught.value.diagnostic.code == code
    assert caught.value.diagnostic.hint


def test_a_model_without_blocks(tmp_path: Path) -> None:
    b = Builder(seed=1)
    b.output(b.linear(b.relu(b.linear(b.input("x", [1, 4, 8]), 16)), 4))
    ir.save(b.model(), tmp_path / "plain.onnx")
    with pytest.raises(PrunecError, match="PC218"):
        prunec.plan(tmp_path / "plain.onnx", structures="depth", flops=0.5, samples=8)


def test_inspect_refuses_to_mix_numbers_of_two_analyses(model: Path) -> None:
    with pytest.raises(PrunecError, match="PC216"):
        prunec.inspect(model, structures="channels,head-width")


def test_a_budget_is_shared_evenly() -> None:
    whole_ = Budget.of("flops", 0.25)
    assert stage_budget(whole_, 1, 2).value == pytest.approx(0.5)
    assert stage_budget(whole_, 2, 2) is whole_


def test_experts_go_with_their_branches_and_router_rows(tmp_path: Path) -> None:
    b = Builder(seed=1, opset=20)
    network_of_experts(b, [(one_hot_loop, 8, 2), (softmax_stacked, 4, 1)])
    path = tmp_path / "experts.onnx"
    ir.save(b.model(), path)
    found = prunec.compile(path, structures="experts", params=0.6, output=tmp_path / "out", **FAST)
    assert found.plan.structures == ("experts",)
    kept = [(group.size, group.kept) for group in found.plan.groups]
    assert [size for size, _ in kept] == [8, 4] and all(least <= k for (_, k), least in zip(kept, (2, 1), strict=True))
    dense, pruned = open_model(path).canonical, ir.load(tmp_path / "out" / "model.onnx")
    assert parameter_count(pruned) <= 0.6 * parameter_count(dense)
    assert found.plan.realised.params == pytest.approx(parameter_count(pruned) / parameter_count(dense), abs=1e-6)
    assert all(trial.float64 is not None and trial.float64 <= 1e-12 for trial in found.proof)
    again = prunec.compile(path, plan=tmp_path / "out" / "plan.json", output=tmp_path / "again", **FAST)
    assert again.manifest == found.manifest
    assert not [g for g in prunec.inspect(path).groups if g.kind == "C" and g.pinned is None]
    assert len([g for g in prunec.inspect(path, structures="experts").groups if g.pinned is None]) == 2


def test_explain_sees_what_the_structures_free(model: Path) -> None:
    streams = [group for group in prunec.inspect(model, structures="residual").groups if group.pinned is None]
    node = next(member.node for member in streams[0].members if member.role == "producer")
    (part,) = (p for p in prunec.explain(model, node, structures="residual").parts if p.group == streams[0].id)
    assert part.pinned is None and part.size == streams[0].size
    assert all(p.pinned is not None for p in prunec.explain(model, node).parts if p.does == "makes")
    with pytest.raises(PrunecError, match="PC216"):
        prunec.explain(model, node, structures="deep")
