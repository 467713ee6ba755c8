"""The table against the code: every line can be built, fed and judged."""

import importlib
import inspect
import itertools
import re
import sys
from pathlib import Path

import pytest

import prunec.models
from prunec.diagnostics import PrunecError
from prunec.models import packages
from prunec.models.catalogue import ENTRIES, ZooEntry
from prunec.models.packages import Package

ALL_PACKAGES = [value for value in vars(packages).values() if isinstance(value, Package)]
entries = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)


def test_names_are_unique_and_plain():
    names = [entry.name for entry in ENTRIES]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in names)


@entries
def test_every_entry_names_code_that_exists(entry: ZooEntry):
    module = importlib.import_module(entry.module)
    assert callable(getattr(module, entry.build))
    assert entry.parameters > 0 and entry.inputs and entry.licence
    if not entry.dense:
        assert entry.calib is None and entry.metric is None
        return
    assert entry.calib == f"{entry.module}:calibration"
    assert entry.metric == f"{entry.module}:metric"
    assert list(inspect.signature(module.calibration).parameters) == ["samples", "seed"]
    assert list(inspect.signature(module.test_inputs).parameters) == ["samples", "seed"]
    samples = inspect.signature(module.metric).parameters["samples"]
    assert samples.kind is inspect.Parameter.KEYWORD_ONLY and samples.default is None
    assert entry.static_inputs.keys() == entry.inputs.keys()


@entries
def test_dense_figures_are_shares(entry: ZooEntry):
    assert all(0 < value <= 1 for value in entry.dense.values())


@pytest.mark.parametrize("package", ALL_PACKAGES, ids=lambda package: package.name)
def test_every_package_is_pinned(package: Package):
    hashes = [package.archive_sha256] if package.archive_sha256 else [member.sha256 for member in package.members]
    assert all(value and re.fullmatch(r"[0-9a-f]{64}", value) for value in hashes)
    assert package.members
    assert not any(Path(member.path).is_absolute() or ".." in member.path for member in package.members)


def test_every_package_is_used():
    used = list(itertools.chain.from_iterable((*entry.packages, *entry.data) for entry in ENTRIES))
    assert [package.name for package in ALL_PACKAGES if package not in used] == []


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(PrunecError, match="PC707") as caught:
        prunec.models.get("crepe-tinny")
    assert caught.value.diagnostic.hint == "did you mean crepe-tiny?"


def test_get_builds_once_and_answers_from_the_cache(tmp_path, monkeypatch):
    model = prunec.models.get("fashion-net", cache=tmp_path)
    assert model.path == tmp_path / "zoo/fashion-net/r1/fashion-net.onnx"
    assert (model.calib, model.metric) == (model.entry.calib, model.entry.metric)
    monkeypatch.setattr(sys.modules["prunec.models.fashion_net"], "build", None)
    assert prunec.models.get("fashion-net", cache=tmp_path).path == model.path


def test_a_failed_build_leaves_no_model(tmp_path, monkeypatch):
    def fail(folder, **options):
        (folder / "fashion-net.onnx").write_bytes(b"half")
        raise RuntimeError("half way")

    monkeypatch.setattr(importlib.import_module("prunec.models.fashion_net"), "build", fail)
    with pytest.raises(RuntimeError):
        prunec.models.get("fashion-net", cache=tmp_path)
    assert not list(tmp_path.rglob("*.onnx"))


def test_listing_the_zoo_loads_no_builder():
    import subprocess

    code = "import sys, prunec.models; prunec.models.entries(); print([m for m in sys.modules if 'onnx' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@entries
def test_data_is_fetched_at_the_first_sample(entry: ZooEntry):
    """Calibration functions are generators: calling one costs nothing, and its errors keep their code."""
    if entry.dense:
        assert inspect.isgeneratorfunction(importlib.import_module(entry.module).calibration)
