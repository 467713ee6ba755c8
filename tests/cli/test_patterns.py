"""`compile --pattern`: from the command line to a package whose zeros were counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.cli.helpers import files, prunec, refuses

FAST = ("--no-measure", "--samples", "40", "--solver", "fast")


def weights(path: Path) -> dict[str, np.ndarray]:
    model = onnx.load(path)
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def planned(out: Path) -> dict[str, dict[str, object]]:
    return {layer["tensor"]: layer for layer in json.loads((out / "plan.json").read_text())["layers"]}


def test_two_of_four_along_input_channels(folder: Path) -> None:
    done = prunec("compile", "model.onnx", "--pattern", "2:4", *FAST, "-o", "out", "--json", cwd=folder)
    assert done.code == 0, done.err
    document = done.json
    patterns = document["verification"]["patterns"]
    assert patterns["passed"] and all(layer["valid"] == layer["units"] > 0 for layer in patterns["layers"])
    assert all(layer["error"] < layer["error_plain"] for layer in patterns["layers"])
    layers = planned(folder / "out")
    assert sorted(layer["why"] for layer in layers.values()) == [
        "asked for", "asked for", "head: no layer comes after it", "stem: 3 input channels",
    ]  # fmt: skip
    found, dense = weights(folder / "out" / "model.onnx"), weights(folder / "model.onnx")
    for tensor, layer in layers.items():
        if layer["pattern"] == "2:4":
            weight = found[tensor]
            groups = (weight != 0).reshape(len(weight), -1, 4, *weight.shape[2:]).sum(axis=2)
            assert groups.max() <= 2 and not np.signbit(weight[weight == 0]).any()
            assert weight.shape == dense[tensor].shape
    assert {w["code"] for w in document["warnings"]} >= {"PC226"}
    report = (folder / "out" / "report.html").read_text()
    assert "Sparsity patterns" in report and "head: no layer comes after it" in report
    removed, zero = report.split("<dt>Removed</dt>")[1].split("<dt>Zero</dt>")
    assert "asked for" not in removed
    assert "(asked for: 50.0 % of those of the prunable layers)" in zero.split("</dd>")[0]


def test_blocks_at_a_level_and_a_package_that_verifies(folder: Path) -> None:
    options = ("--pattern", "block:4x1", "--sparsity", "0.6", *FAST)
    assert prunec("compile", "model.onnx", *options, "-o", "out", cwd=folder).code == 0
    found = weights(folder / "out" / "model.onnx")
    for tensor, layer in planned(folder / "out").items():
        if layer["pattern"] != "dense":
            blocks = (found[tensor] != 0).reshape(len(found[tensor]) // 4, 4, -1).any(axis=1)
            assert (~blocks).mean() >= 0.6
    checked = prunec("verify", "out", "--source", "model.onnx", "--json", cwd=folder)
    assert checked.code == 0, checked.err
    assert checked.json["patterns"]["passed"]


def test_verify_sees_a_weight_that_lost_its_pattern(folder: Path) -> None:
    """Hashes apart: `plan.json` is the package's own statement of what its weights are."""
    from prunec.api.patterning import patterns_record
    from prunec.diagnostics import GateError
    from prunec.frontend.onnx import load
    from prunec.plan.plan import Plan

    assert prunec("compile", "model.onnx", "--pattern", "2:4", *FAST, "-o", "out", cwd=folder).code == 0
    plan = Plan.load(folder / "out" / "plan.json")
    with pytest.raises(GateError, match="PC523"):
        patterns_record(plan, load(folder / "model.onnx").model)


def test_channels_and_a_pattern(folder: Path) -> None:
    options = ("--flops", "0.6", "--pattern", "2:4", *FAST)
    done = prunec("compile", "model.onnx", *options, "-o", "out", "--json", cwd=folder)
    assert done.code == 0, done.err
    verification = done.json["verification"]
    assert verification["sparsity"]["realised_flops"] >= 0.4 and verification["exactness"]["groups_checked"] > 0
    assert verification["patterns"]["passed"] and len(verification["patterns"]["layers"]) == 2


def test_a_plan_with_patterns_replays_byte_for_byte(folder: Path) -> None:
    np.savez(folder / "data.npz", x=np.random.default_rng(0).standard_normal((20, 3, 12, 12)).astype(np.float32))
    data = ("--calib", "data.npz", "--samples", "16")
    how = ("--pattern", "unstructured", "--sparsity", "0.7", "--solver", "fast", *data)
    assert prunec("plan", "model.onnx", *how, "-o", "p.json", cwd=folder).code == 0
    assert prunec("compile", "model.onnx", *how, "--no-measure", "-o", "direct", cwd=folder).code == 0
    replay = ("compile", "model.onnx", "--plan", "p.json", *data, "--no-measure", "-o", "replayed")
    assert prunec(*replay, cwd=folder).code == 0
    direct, replayed = files(folder / "direct"), files(folder / "replayed")
    for name in ("model.onnx", "plan.json", "manifest.json"):
        assert direct[name] == replayed[name]
    document = json.loads((folder / "p.json").read_text())
    edited = next(layer for layer in document["layers"] if layer["pattern"] != "dense")
    edited.update(pattern="2:4", level=0.5)
    (folder / "p.json").write_text(json.dumps(document))
    assert prunec(*replay, "--force", cwd=folder).code == 0
    found = weights(folder / "replayed" / "model.onnx")[edited["tensor"]]
    assert (found != 0).reshape(len(found), -1, 4, *found.shape[2:]).sum(axis=2).max() <= 2
    edited.update(pattern="vnm:512:2:8", level=0.75)
    (folder / "p.json").write_text(json.dumps(document))
    refuses(prunec(*replay, "--force", cwd=folder), "PC204")


def test_without_compensation_weights_are_only_masked(folder: Path) -> None:
    options = ("--pattern", "2:4", "--no-compensate", *FAST)
    assert prunec("compile", "model.onnx", *options, "-o", "out", cwd=folder).code == 0
    found, dense = weights(folder / "out" / "model.onnx"), weights(folder / "model.onnx")
    for tensor, layer in planned(folder / "out").items():
        if layer["pattern"] != "dense" and tensor in dense:
            assert np.count_nonzero(found[tensor]) == found[tensor].size // 2
            for row, old in zip(found[tensor], dense[tensor], strict=True):  # a batch norm may have scaled it
                ratio = row[row != 0] / old[row != 0]
                np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)


def test_where_solving_made_the_outputs_worse_the_masks_stay_and_the_record_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prunec.passes.compensate.driver._output_errors", lambda *_: (0.1, 0.2))
    done = prunec("compile", "model.onnx", "--pattern", "2:4", *FAST, "-o", "out", "--json", cwd=folder)
    assert done.code == 0, done.err
    assert "PC333" in {warning["code"] for warning in done.json["warnings"]}
    layers = done.json["verification"]["patterns"]["layers"]
    assert layers and all(layer["passed"] and "method" not in layer for layer in layers)


def test_one_solver_by_name(folder: Path) -> None:
    quick = ("compile", "model.onnx", "--pattern", "2:4", "--no-measure", "--samples", "40", "-o", "out", "--json")
    done = prunec(*quick, "--solver", "sparsegpt", cwd=folder)
    assert done.code == 0, done.err
    assert {layer["method"] for layer in done.json["verification"]["patterns"]["layers"]} == {"sparsegpt"}
    assert json.loads((folder / "out" / "plan.json").read_text())["solver"] == "sparsegpt"


def test_a_solver_that_is_not_there(folder: Path) -> None:
    refused = prunec("compile", "model.onnx", "--pattern", "2:4", "--solver", "sparsegtp", cwd=folder)
    refuses(refused, "PC203")
    assert "sparsegpt" in refused.err
    refuses(prunec("compile", "model.onnx", "--pattern", "2:4", "--solver", "armor", cwd=folder), "PC228")


def test_channels_are_reordered_proved_and_replayed_byte_for_byte(folder: Path) -> None:
    np.savez(folder / "data.npz", x=np.random.default_rng(0).standard_normal((24, 3, 12, 12)).astype(np.float32))
    data = ("--calib", "data.npz", "--samples", "20")
    how = ("--pattern", "2:4", "--solver", "fast", *data)
    assert prunec("plan", "model.onnx", *how, "--permute", "-o", "p.json", cwd=folder).code == 0
    done = prunec("compile", "model.onnx", *how, "--permute", "--no-measure", "-o", "direct", "--json", cwd=folder)
    assert done.code == 0, done.err
    order = done.json["verification"]["patterns"]["permutation"]
    assert order["passed"] and order["float32_max_rel"] <= 1e-5 and order["float64_max_rel"] <= 1e-12
    assert order["groups"] and all(group["moved"] for group in order["groups"])
    for group in order["groups"]:
        assert group["kept_after"] > group["kept_before"] and group["error_after"] < group["error_before"]
    replay = ("compile", "model.onnx", "--plan", "p.json", *data, "--no-measure", "-o", "replayed")
    assert prunec(*replay, cwd=folder).code == 0
    direct, replayed = files(folder / "direct"), files(folder / "replayed")
    for name in ("model.onnx", "plan.json", "manifest.json"):
        assert direct[name] == replayed[name]
    checked = prunec("verify", "direct", "--source", "model.onnx", "--json", cwd=folder)
    assert checked.code == 0, checked.err
    assert checked.json["patterns"]["permutation"]["groups"] == order["groups"]
    assert (
        "reordered"
        in prunec("compile", "model.onnx", "--plan", "p.json", *data, "--no-measure", "-o", "shown", cwd=folder).out
    )

    document = json.loads((folder / "p.json").read_text())
    order = document["permutation"]["groups"][0]["order"]
    document["permutation"]["groups"][0]["order"] = [*order[:-1], order[0]]
    (folder / "p.json").write_text(json.dumps(document))
    refuses(prunec(*replay, "--force", cwd=folder), "PC204")


def test_no_permute_leaves_the_order_alone(folder: Path) -> None:
    options = ("--pattern", "2:4", "--samples", "40", "--solver", "best", "--no-permute", "--dry-run", "--json")
    done = prunec("compile", "model.onnx", *options, cwd=folder)
    assert done.code == 0, done.err
    assert "permutation" not in done.json["plan"]
