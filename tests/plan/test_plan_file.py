"""The plan file: its bytes, hand edits that work, and hand edits that do not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunec.criteria import create
from prunec.diagnostics import Diagnostic, PrunecError
from prunec.plan.budget import Budget
from prunec.plan.plan import Plan
from prunec.plan.planner import Planner
from prunec.plan.replay import EDITED, check_plan
from tests.criteria.small import branches, chain, context, grouped

ABOUT = context(chain())
SHA = "ab" * 32
Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def made() -> Plan:
    options: dict[str, Any] = {"seed": 3, "source_sha256": SHA, "exclude": ["no*such*thing", "conv*"][:0]}
    return Planner(ABOUT.model, ABOUT.analysis, create("l1"), ABOUT, **options).least_cut(Budget.of("channels", 0.5))


def edited(made: Plan, tmp_path: Path, edit: Edit) -> Plan:
    data = json.loads(made.to_bytes())
    edit(data)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(data))
    return Plan.load(path)


def refusal(made: Plan, tmp_path: Path, edit: Edit) -> Diagnostic:
    with pytest.raises(PrunecError) as caught:
        check_plan(edited(made, tmp_path, edit), ABOUT.model, ABOUT.analysis, source_sha256=SHA)
    assert caught.value.diagnostic.hint
    return caught.value.diagnostic


def test_the_file_says_everything_on_readable_lines(made: Plan) -> None:
    data = json.loads(made.to_bytes())
    assert data["schema_version"] == 1 and data["source_sha256"] == SHA and data["seed"] == 3
    assert data["budget"] == {"kind": "channels", "value": 0.5} and data["criterion"] == "l1"
    assert set(data["groups"][0]) == {"id", "size", "kept", "cut", "requested", "why", "producers"}
    assert data["groups"][0]["producers"] == [ABOUT.analysis.groups[0].producers()[0].tensor]
    assert data["groups"][0]["cut"] == sorted(data["groups"][0]["cut"])
    cut_lines = [line for line in made.to_bytes().decode().splitlines() if '"cut"' in line]
    assert len(cut_lines) == 2 and all(line.endswith("],") for line in cut_lines)
    assert list(data) == sorted(data)


def test_a_person_may_swap_channels(made: Plan, tmp_path: Path) -> None:
    keep = [i for i in range(16) if i not in made.groups[0].cut]
    swapped = edited(made, tmp_path, lambda d: d["groups"][0].update(cut=keep[::-1]))
    assert swapped.groups[0].cut == tuple(keep)
    replayed = check_plan(swapped, ABOUT.model, ABOUT.analysis, source_sha256=SHA)
    assert np.array_equal(replayed.keeps()["g0"], ~made.keeps()["g0"]) and replayed.notes == ()


def test_a_person_may_cut_less_and_the_plan_says_so(made: Plan, tmp_path: Path) -> None:
    replayed = check_plan(
        edited(made, tmp_path, lambda d: d["groups"][0].update(cut=[1, 2])), ABOUT.model, ABOUT.analysis
    )
    assert replayed.groups[0].kept == 14 and replayed.realised.params > made.realised.params
    assert replayed.notes == (EDITED,)
    assert check_plan(replayed, ABOUT.model, ABOUT.analysis) is replayed


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda d: d["groups"][0].update(cut=[0, 16]), "no channel 16, the group has 0 to 15"),
        (lambda d: d["groups"][0].update(cut=[-1]), "no channel -1"),
        (lambda d: d["groups"][0].update(cut=[1, 1]), "cut twice"),
        (lambda d: d["groups"][0].update(cut=list(range(16))), "all 16 channels are cut"),
        (lambda d: d["groups"][0].update(cut="all"), "groups.0.cut"),
        (lambda d: d["groups"].append(d["groups"][0]), "g0 is listed twice"),
        (lambda d: d["groups"][0].update(id="g7"), "no group 'g7'; there is g0, g1, g2"),
        (lambda d: d["groups"][0].update(size=20), "gives it 20 channels, the model has 16"),
        (lambda d: d["groups"][0].update(id="g2", size=10, cut=[1]), "the group cannot be cut"),
        (lambda d: d.update(schema_version=2), "schema_version"),
        (lambda d: d.update(patern="channel"), "patern"),
        (lambda d: d.pop("seed"), "seed"),
        (lambda d: d["budget"].update(kind="latency"), "budget.kind"),
    ],
)
def test_nonsense_is_refused(made: Plan, tmp_path: Path, edit: Edit, says: str) -> None:
    found = refusal(made, tmp_path, edit)
    assert found.code == "PC204" and says in found.message


def test_a_slice_that_runs_empty_is_refused(tmp_path: Path) -> None:
    about = context(branches())
    made = Planner(about.model, about.analysis, create("l1"), about).least_cut(Budget.of("channels", 0.25))
    number = next(i for i, g in enumerate(made.groups) if g.size == 64)
    empty = edited(made, tmp_path, lambda d: d["groups"][number].update(cut=list(range(40, 64))))
    with pytest.raises(PrunecError, match="without channels") as caught:
        check_plan(empty, about.model, about.analysis)
    assert caught.value.diagnostic.code == "PC204"


def test_another_model_file_is_refused(made: Plan) -> None:
    with pytest.raises(PrunecError, match="another model file") as caught:
        check_plan(made, ABOUT.model, ABOUT.analysis, source_sha256="cd" * 32)
    assert caught.value.diagnostic.code == "PC205" and "prunec plan" in (caught.value.diagnostic.hint or "")


def test_another_graph_is_refused_even_without_a_file_hash(made: Plan) -> None:
    other = context(chain(16, seed=0))
    check_plan(made, other.model, other.analysis)
    renamed = other.model.clone()
    next(iter(renamed.graph)).name = "renamed"
    with pytest.raises(PrunecError, match="differ") as caught:
        check_plan(made, renamed, other.analysis)
    assert caught.value.diagnostic.code == "PC205"
    different = context(grouped())
    with pytest.raises(PrunecError) as caught:
        check_plan(made, different.model, different.analysis)
    assert caught.value.diagnostic.code == "PC204"


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b'{"groups": 3}'])
def test_files_that_are_no_plan(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(PrunecError, match="not a valid plan") as caught:
        Plan.load(path)
    assert caught.value.diagnostic.code == "PC204" and caught.value.diagnostic.where == str(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PrunecError, match="No such file") as caught:
        Plan.load(tmp_path / "nothing.json")
    assert caught.value.diagnostic.code == "PC204"
