"""Opening packages: good ones run, damaged ones say how they are damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunec.diagnostics import PrunecError
from prunec.package.load import check_files, load_package
from prunec.package.manifest import Manifest, source_record
from prunec.package.writer import PackageWriter
from tests.package.samples import PLAN_JSON, fill, wide_model, write_package

X = {"input/x:0": np.ones((3, 4), np.float32)}


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def refused(path: Path) -> PrunecError:
    with pytest.raises(PrunecError) as raised:
        load_package(path)
    assert raised.value.exit_code == 2
    return raised.value


def test_a_package_loads_and_runs(tmp_path: Path) -> None:
    package = load_package(write_package(tmp_path / "out"))
    assert package.manifest.target == "onnx"
    assert package.plan == PLAN_JSON
    assert package.measurements is None
    assert package.verification is not None
    assert package.verification.quality is not None
    assert package.verification.quality.drop == 0.1
    np.testing.assert_array_equal(package.run(X)["y"], [[16, 20]] * 3)


def test_a_package_with_external_weights_runs_and_is_guarded(tmp_path: Path) -> None:
    with PackageWriter(tmp_path / "out") as writer:
        fill(writer, wide_model(), inline_limit_bytes=0)
    np.testing.assert_array_equal(load_package(tmp_path / "out").run(X)["y"], [[16, 20] * 64] * 3)
    data = tmp_path / "out" / "model.onnx.data"
    data.write_bytes(b"\1" + data.read_bytes()[1:])
    assert refused(tmp_path / "out").diagnostic.code == "PC612"


def test_wrong_feeds_are_named(tmp_path: Path) -> None:
    package = load_package(write_package(tmp_path / "out"))
    with pytest.raises(PrunecError, match="takes input/x:0, not z") as raised:
        package.run({"z": X["input/x:0"]})
    assert raised.value.diagnostic.code == "PC614"


@pytest.mark.parametrize("name", ["model.onnx", "plan.json", "README.txt"])
def test_a_missing_a_truncated_and_a_changed_file(tmp_path: Path, name: str) -> None:
    out = write_package(tmp_path / "out")
    whole = (out / name).read_bytes()
    for data, code, words in [
        (None, "PC611", "missing"),
        (whole[:-5], "PC611", f"truncated: {len(whole) - 5} of {len(whole)} bytes"),
        (whole[:-1] + b"!", "PC612", "changed"),
        (whole + b" ", "PC612", "changed"),
    ]:
        (out / name).unlink(missing_ok=True)
        if data is not None:
            (out / name).write_bytes(data)
        problem = refused(out).diagnostic
        assert problem.code == code
        assert words in problem.message
        assert problem.where == str(out / name)
        assert problem.hint


def test_every_damaged_file_is_listed(tmp_path: Path) -> None:
    package = load_package(write_package(tmp_path / "out"))
    (package.path / "plan.json").unlink()
    (package.path / "model.onnx").write_bytes(b"")
    assert [problem.code for problem in check_files(package.path, package.manifest)] == ["PC611", "PC611"]


def test_what_is_no_package_is_said_to_be_none(tmp_path: Path) -> None:
    assert "no prunec package" in str(refused(tmp_path))
    assert "no prunec package" in str(refused(tmp_path / "nowhere"))
    out = write_package(tmp_path / "out")
    (out / "manifest.json").write_text((out / "manifest.json").read_text()[:100])
    assert refused(out).diagnostic.code == "PC610"
    (out / "manifest.json").write_text("[]")
    assert refused(out).diagnostic.code == "PC610"


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda m: m.update(schema_version=2), "PC613", "newer"),
        (lambda m: m.pop("target"), "PC610", "target"),
        (lambda m: m.update(extra=1), "PC610", "extra"),
        (lambda m: m["files"].update({"../../etc/passwd": {"sha256": "0", "bytes": 1}}), "PC610", "inside the package"),
        (lambda m: m["files"].update({"/etc/passwd": {"sha256": "0", "bytes": 1}}), "PC610", "inside the package"),
    ],
)
def test_an_edited_manifest_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], code: str, words: str
) -> None:
    out = write_package(tmp_path / "out")
    edit(out / "manifest.json", change)
    problem = refused(out).diagnostic
    assert problem.code == code
    assert words in problem.message


def test_evidence_of_another_shape_is_refused(tmp_path: Path) -> None:
    out = write_package(tmp_path / "out")
    edit(out / "verification.json", lambda document: document["quality"].pop("drop"))
    assert "quality.drop" in str(refused(out))
    (out / "verification.json").write_text("{")
    assert refused(out).diagnostic.code == "PC610"


def test_the_manifest_reads_back_what_it_wrote(tmp_path: Path) -> None:
    document = json.loads((write_package(tmp_path / "out") / "manifest.json").read_text())
    assert Manifest.model_validate(document).to_json() == document


def test_a_source_name_has_no_folder_and_is_text() -> None:
    record = source_record(Path("/data/m\udcff.onnx"), "0")
    assert record.name == "m?.onnx"
