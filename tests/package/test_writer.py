"""A package is written whole or not at all, and never over anything that is not one."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from prunec.diagnostics import PrunecError
from prunec.package import destination
from prunec.package.jsonfile import dumps
from prunec.package.manifest import PLAN
from prunec.package.writer import PackageWriter, save_model
from tests.package.samples import PLAN_JSON, SOURCE, fill, micro_model, wide_model, write_package


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def code_of(out: Path, *, force: bool = False) -> str:
    """Which code refuses `out`; the folder around it must be as before."""
    before = names(out.parent) if out.parent.is_dir() else []
    with pytest.raises(PrunecError) as raised:
        write_package(out, force=force)
    assert raised.value.exit_code == 2
    assert raised.value.diagnostic.hint
    assert (names(out.parent) if out.parent.is_dir() else []) == before
    return raised.value.diagnostic.code


def test_a_package_holds_what_the_contract_says(tmp_path: Path) -> None:
    out = write_package(tmp_path / "out")
    assert names(out) == ["README.txt", "manifest.json", "model.onnx", "plan.json", "verification.json"]
    assert names(tmp_path) == ["out"]
    manifest = json.loads((out / "manifest.json").read_text())
    assert set(manifest) == {
        *("schema_version", "source", "target", "inputs", "outputs", "plan_sha256", "files", "tools")
    }
    assert manifest["inputs"] == [{"name": "input/x:0", "dtype": "float32", "shape": ["batch", 4]}]
    assert set(manifest["files"]) == {"README.txt", "model.onnx", "plan.json"}
    assert manifest["plan_sha256"] == manifest["files"]["plan.json"]["sha256"]
    assert str(tmp_path) not in (out / "manifest.json").read_text()
    assert b"\r" not in (out / "plan.json").read_bytes()


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    one, other = write_package(tmp_path / "a"), write_package(tmp_path / "b")
    for name in names(one):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_the_package_is_as_readable_as_any_new_folder(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    out = write_package(tmp_path / "out")
    assert stat.S_IMODE(out.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
@pytest.mark.parametrize("existing", [False, True])
def test_an_exception_leaves_everything_as_it_was(tmp_path: Path, error: type[BaseException], existing: bool) -> None:
    out = tmp_path / "out"
    if existing:
        write_package(out)
        (out / "verification.json").write_text("{}")
    before = names(tmp_path)

    def interrupted() -> None:
        with PackageWriter(out, force=True) as writer:
            fill(writer)
            raise error

    with pytest.raises(error):
        interrupted()
    assert names(tmp_path) == before
    if existing:
        assert (out / "verification.json").read_text() == "{}"


def test_an_existing_package_needs_force(tmp_path: Path) -> None:
    out = write_package(tmp_path / "out")
    (out / "verification.json").write_text("{}")
    assert code_of(out) == "PC601"
    assert (out / "verification.json").read_text() == "{}"
    write_package(out, force=True)
    assert (out / "verification.json").read_text() != "{}"
    assert names(tmp_path) == ["out"]


def test_force_works_where_the_system_cannot_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = write_package(tmp_path / "out")
    (out / "verification.json").write_text("{}")
    monkeypatch.setattr(destination, "_exchange", lambda one, other: False)
    write_package(out, force=True)
    assert (out / "verification.json").read_text() != "{}"
    assert names(tmp_path) == ["out"]


def test_a_failed_swap_keeps_the_old_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = write_package(tmp_path / "out")
    before = names(out)
    rename = os.rename

    def fails_into_out(source: Path, target: Path) -> None:
        if target == out and ".old" not in str(source):
            raise OSError(errno.EBUSY, "busy")
        rename(source, target)

    monkeypatch.setattr(destination, "_exchange", lambda one, other: False)
    monkeypatch.setattr(os, "rename", fails_into_out)
    assert code_of(out, force=True) == "PC606"
    assert names(out) == before


@pytest.mark.parametrize("force", [False, True])
def test_what_is_no_package_is_never_replaced(tmp_path: Path, force: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    holiday = tmp_path / "holiday"
    holiday.mkdir()
    (holiday / "photo.jpg").write_bytes(b"precious")
    assert code_of(holiday, force=force) == "PC602"
    assert (holiday / "photo.jpg").read_bytes() == b"precious"
    (holiday / "manifest.json").write_text('{"name": "some web application"}')
    assert code_of(holiday, force=force) == "PC602"
    (tmp_path / "file").write_text("x")
    assert code_of(tmp_path / "file", force=force) == "PC602"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert code_of(tmp_path / "here", force=force) == "PC602"


def test_a_package_with_the_users_files_is_not_replaced(tmp_path: Path) -> None:
    out = write_package(tmp_path / "out")
    (out / "notes").mkdir()
    (out / "notes" / "mine.txt").write_text("keep me")
    assert code_of(out, force=True) == "PC603"
    assert (out / "notes" / "mine.txt").read_text() == "keep me"


def test_an_empty_folder_may_become_the_package(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert (write_package(tmp_path / "out") / "manifest.json").exists()


def test_a_package_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    writer = PackageWriter(tmp_path / "out")
    writer.__enter__()
    fill(writer)
    write_package(tmp_path / "out")
    with pytest.raises(PrunecError) as raised:
        writer.__exit__(None, None, None)
    assert raised.value.diagnostic.code == "PC601"
    assert names(tmp_path) == ["out"]


def test_a_folder_that_does_not_exist_or_is_closed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert code_of(tmp_path / "no" / "out") == "PC604"
    (tmp_path / "file").write_text("x")
    assert code_of(tmp_path / "file" / "out") == "PC604"
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    assert code_of(tmp_path / "out") == "PC604"


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "PC605"), (errno.EROFS, "PC604"), (errno.EIO, "PC606")])
def test_what_the_system_refuses_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    def refuse(path: Path, data: bytes) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    assert code_of(tmp_path / "out") == code


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), OSError("262144 requested and 16384 written")]
)
def test_a_full_disk_while_the_model_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(ir, "save", refuse)
    assert code_of(tmp_path / "out") == "PC605"


@pytest.mark.parametrize("limit", [0, 2**20])
def test_large_weights_go_beside_the_model(tmp_path: Path, limit: int) -> None:
    model = wide_model()
    with PackageWriter(tmp_path / "out") as writer:
        path = writer.write_model(model, inline_limit_bytes=limit)
        assert path.parent == writer.folder
        writer.write_json(PLAN, PLAN_JSON)
        manifest = writer.write_manifest(source=SOURCE, target="onnx", model=model)
    assert ("model.onnx.data" in manifest.files) == (limit == 0)
    assert ("model.onnx.data" in (tmp_path / "out" / "README.txt").read_text()) == (limit == 0)
    assert isinstance(model.graph.initializers["w"].const_value, ir.Tensor)  # the model in memory is as it was


def test_the_model_does_not_keep_pointing_at_the_source(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    ir.save(micro_model(), source / "m.onnx", external_data="weights.bin", size_threshold_bytes=0)
    model = ir.load(source / "m.onnx")
    save_model(model, tmp_path / "alone.onnx")
    assert isinstance(model.graph.initializers["w"].const_value, ir.ExternalTensor)
    (source / "weights.bin").unlink()
    session = ort.InferenceSession(str(tmp_path / "alone.onnx"))
    found = session.run(None, {"input/x:0": np.ones((1, 4), np.float32)})[0]
    np.testing.assert_array_equal(found, [[16, 20]])


def test_json_has_one_spelling() -> None:
    assert dumps({"b": np.float32(0.5), "a": np.arange(2), "ü": None}) == (
        '{\n  "a": [\n    0,\n    1\n  ],\n  "b": 0.5,\n  "\\u00fc": null\n}\n'
    )
    with pytest.raises(ValueError, match="JSON"):
        dumps(float("nan"))
    with pytest.raises(TypeError, match="object"):
        dumps(object())
