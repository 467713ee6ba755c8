"""`--steps`: what goes in every round, that it is one cut in the end, replays, Ctrl-C, and what is refused."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import prunec
from prunec.diagnostics import PrunecError
from prunec.graph.shapes import constant
from tests.graph.builder import Builder
from tests.recover.nets import residual

pytest.importorskip("torch", reason="needs the [torch] extra")
end_to_end = pytest.importorskip("prunec.recover.end_to_end")
pytestmark = pytest.mark.torch


@pytest.fixture
def source(tmp_path: Path) -> Path:
    b = Builder(0)
    b.output(residual(b))
    ir.save(b.model(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture(scope="module")
def images() -> list[dict[str, np.ndarray]]:
    x = np.random.default_rng(0).standard_normal((40, 3, 8, 8)).astype(np.float32)
    x += np.roll(x, 1, 2) + np.roll(x, 1, 3)
    return [{"x": x[i : i + 8]} for i in range(0, 40, 8)]


def compiled(source: Path, data: Any, out: str, **options: Any) -> Any:
    own = {"recover": "bias", "recover_minutes": 0.005, "measure": False, "round_to": 1, "cache": False, **options}
    if "plan" in own:
        own = {name: value for name, value in own.items() if name in ("plan", "measure", "cache")}
    return prunec.compile(str(source), calib=data, output=source.parent / out, **own)


def same_bytes(one: Path, two: Path) -> bool:
    return all((one / name).read_bytes() == (two / name).read_bytes() for name in ("model.onnx", "plan.json"))


def test_channels_go_along_the_cubic_curve_and_are_one_cut(source: Path, images: Any) -> None:
    found = compiled(source, images, "out", flops=0.4, steps=3, recover_minutes=0.03, scope="layer")
    plan = json.loads((source.parent / "out/plan.json").read_text())
    first, second = plan["recovery"]["rounds"]
    last = {group["id"]: group["cut"] for group in plan["groups"]}
    counts = [sum(map(len, own.values())) for own in (first["cut"], second["cut"], last)]
    assert 0 < counts[0] < counts[1] < counts[2]
    for name, cut in second["cut"].items():
        assert set(first["cut"].get(name, ())) <= set(cut) <= set(last[name])
    assert found.verification.sparsity.realised_flops >= 0.6 and found.verification.exactness.passed
    names = [run.name for run in found.verification.recovery.runs]
    assert names[0].startswith("step 1 of 3: ") and names[-1].startswith("step 3 of 3: ")
    assert "--steps 3" in found.command and sum(run.done for run in found.verification.recovery.runs) > 3
    widths = sorted(w.shape[0] for v in ir.load(source.parent / "out/model.onnx").graph.initializers.values()
                    if (w := constant(v)) is not None and w.ndim == 4)  # fmt: skip
    assert widths[0] < 12
    assert prunec.verify(source.parent / "out", source=str(source), calib=images).exactness.passed
    compiled(source, images, "again", plan=source.parent / "out/plan.json")
    assert same_bytes(source.parent / "out", source.parent / "again")


def test_zeros_go_in_rounds_and_ctrl_c_lets_the_rest_go_at_once(
    source: Path, images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {
        "recover_minutes": 0.2,
        "round_to": None,
        "pattern": "unstructured",
        "sparsity": 0.75,
        "solver": "magnitude",
        "steps": 4,
    }
    honest, calls = end_to_end._Distillation.loss, list[int]()

    def pressed(self: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return honest(self)

    monkeypatch.setattr(end_to_end._Distillation, "loss", pressed)
    found = compiled(source, images, "out", **options)
    assert "PC345" in [warning.code for warning in found.warnings]
    assert "interrupted" in [run.stopped for run in found.verification.recovery.runs]
    plan = json.loads((source.parent / "out/plan.json").read_text())["recovery"]
    levels = [own["layers"][0]["level"] for own in plan["rounds"]]
    assert levels == pytest.approx([0.75 * (1 - 0.75**3), 0.75 * (1 - 0.5**3)][: len(levels)]) and len(levels) < 3
    assert plan["steps"] == 4 and plan["runs"] == [{"of": 1, "done": 0}]
    assert found.verification.patterns.passed and found.verification.patterns.layers[0].zeros >= 0.749
    monkeypatch.setattr(end_to_end._Distillation, "loss", honest)
    compiled(source, images, "again", plan=source.parent / "out/plan.json")
    assert same_bytes(source.parent / "out", source.parent / "again")


def test_a_round_that_was_edited_to_cut_what_stays_is_refused(source: Path, images: Any) -> None:
    compiled(source, images, "out", flops=0.6, steps=2)
    path = source.parent / "out/plan.json"
    plan = json.loads(path.read_text())
    free = next(group for group in plan["groups"] if group["kept"] > 1)
    stays = next(i for i in range(free["size"]) if i not in free["cut"])
    plan["recovery"]["rounds"][0]["cut"][free["id"]] = [*free["cut"], stays]
    path.write_text(json.dumps(plan))
    with pytest.raises(PrunecError, match=r"PC204.*round 1 cuts"):
        compiled(source, images, "again", plan=path)
    plan["recovery"]["rounds"][0]["cut"] = {"no such group": [0]}
    path.write_text(json.dumps(plan))
    with pytest.raises(PrunecError, match=r"PC204.*no such group"):
        compiled(source, images, "again", plan=path)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"flops": 0.5, "steps": 0}, "PC208"),
        ({"flops": 0.5, "steps": 3, "recover": None, "recover_minutes": None}, "PC208"),
        ({"speedup": 2.0, "steps": 3, "round_to": None}, "PC220"),
        ({"size_mb": 0.1, "steps": 3}, "PC220"),
        ({"flops": 0.5, "steps": 3, "structures": "depth,channels"}, "PC220"),
        ({"pattern": "2:4", "permute": True, "steps": 3, "round_to": None}, "PC220"),
    ],
)
def test_steps_that_nothing_can_count_are_refused(
    source: Path, images: Any, options: dict[str, Any], code: str
) -> None:
    with pytest.raises(PrunecError, match=code) as caught:
        compiled(source, images, "out", **options)
    assert caught.value.diagnostic.where == "--steps" and caught.value.diagnostic.hint


def test_a_plan_has_decided_on_steps(source: Path, images: Any) -> None:
    with pytest.raises(PrunecError, match="PC221"):
        prunec.compile(str(source), calib=images, plan="plan.json", steps=3, recover="full")
