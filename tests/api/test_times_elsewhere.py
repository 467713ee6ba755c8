"""Budgets of time for WebAssembly, measured in the engine that is here, and for ARM, modelled and labelled so."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("tvm", reason="needs the [tvm] extra")
pytest.importorskip("ziglang", reason="needs the [cross] extra")
pytest.importorskip("wasmtime", reason="needs the [cross] extra")

from prunec.api import planning, watches
from prunec.api.compilation import compile
from prunec.api.gates import MODEL_SLACK, gate_modelled, refusals
from prunec.api.opening import open_model
from prunec.api.options import PlanOptions
from prunec.api.sweeping import sweep
from prunec.backends.arm64.counting import step_counts
from prunec.backends.arm64.emulated import emulator
from prunec.backends.arm64.target import Arm64
from prunec.backends.base import Measuring, Modelling
from prunec.backends.wasm import layer_times, target
from prunec.backends.wasm.engine import WasmModel
from prunec.backends.wasm.node import NodeModel, node
from prunec.backends.wasm.target import Wasm
from prunec.cache import Cache
from prunec.diagnostics import PrunecError
from prunec.measure.contender import Contender
from prunec.measure.modelled import Modelled
from prunec.measure.modelled_shares import ModelledWatch, write_layers
from prunec.measure.run import measure
from prunec.passes.canonicalise import canonicalise
from prunec.passes.sparsify import LayerPattern
from prunec.passes.sparsify.views import constants, prunable_layers
from prunec.patterns import parse
from prunec.plan.budget import Budget
from prunec.plan.layers import DENSE
from prunec.verify.records import QualityRecord
from tests.graph.builder import Builder

LAYERS, WIDTH = 3, 64
REST_US = 50.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layers that take most of the time."""
    b = Builder(0)
    x = b.relu(b.conv(b.input("x", [1, 3, 12, 12]), WIDTH, 3))
    for _ in range(LAYERS):
        x = b.relu(b.conv(x, WIDTH, 3))
    b.output(b.conv(x, 8, 3))
    path = tmp_path_factory.mktemp("elsewhere") / "model.onnx"
    ir.save(b.model(), path)
    return path


def plan(model: Path, **options: Any) -> planning.Planned:
    return planning.plan(model, samples=24, cache=False, allocation="uniform", **options)


@contextlib.contextmanager
def without_node() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (target, layer_times):
            patch.setattr(module, "node", lambda: None)
        yield


@pytest.mark.parametrize("engine", ["V8", pytest.param("wasmtime", marks=pytest.mark.slow)])
def test_a_speedup_for_wasm_is_measured_in_the_engine(model: Path, engine: str) -> None:
    if engine == "V8" and node() is None:
        pytest.skip("needs Node")
    with without_node() if engine == "wasmtime" else contextlib.nullcontext():
        found = plan(model, target="wasm", speedup=1.25)
    time = found.plan.time
    assert time is not None and time.share <= 1 / 1.25 and not time.modelled
    assert engine in time.machine and time.ci95[0] < time.ci95[1] and time.dense_ms > 0
    sparse = [layer for layer in found.plan.layers if layer.pattern != DENSE]
    assert sparse and all(layer.pattern == "block:8x1" and "µs" in layer.why for layer in sparse)


@pytest.mark.skipif(node() is None, reason="needs Node")
def test_whole_models_are_timed_by_what_node_uses_and_nothing_stays_behind(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    folder = Wasm().write_timed(tmp_path, canonicalise(ir.load(model)), {}, None)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    feeds = {"x": np.zeros((1, 3, 12, 12), np.float32)}
    found = measure(
        [Contender(name, folder, "wasm-node") for name in ("one", "other")], feeds, subject="one", clock="cpu",
        blocks=6, processes=1, warmup_s=0.2, block_ms=4,
    )  # fmt: skip
    assert found.protocol.clock == "processor time" and found.contenders["one"].p50_ms > 0.1
    assert 0.5 < found.speedup["vs_other"].median < 2
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("engine", [NodeModel, WasmModel])
def test_layers_take_less_with_more_zeros_and_times_are_kept(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: type
) -> None:
    if engine is NodeModel and node() is None:
        pytest.skip("needs Node")
    dense = canonicalise(ir.load(model))
    names = [name for name, layer in prunable_layers(dense).items() if constants(layer)[0].shape[0] == WIDTH][1:]
    assert len(names) == LAYERS
    levels = [{name: LayerPattern(parse("block:8x1"), level) for name in names} for level in (0.25, 0.875)]
    started = list[object]()
    for name in ("NodeModel", "WasmModel"):
        monkeypatch.setattr(layer_times, name, lambda folder: (started.append(folder), engine(folder))[1])

    def measured(cache: Cache) -> list[dict[str, float]]:
        found = Wasm().layer_times(dense, levels, 1, None, cache, lambda done, of: None)
        assert all(times.modelled_on is None for own in found for times in own.values())
        return [{name: own[name].sparse_us / own[name].dense_us for name in names} for own in found]

    mild, deep = measured(Cache(tmp_path / "kept"))
    assert len(started) == 1 + len(levels)  # the dense module once
    assert all(deep[name] < min(0.6, mild[name]) for name in names)
    again = measured(Cache(tmp_path / "kept"))  # layers of one shape share what is kept
    assert [set(own) for own in again] == [set(names)] * 2 and len(started) == 1 + len(levels)


def test_times_for_arm64_are_modelled_and_say_so(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Arm64, "rest_us", lambda *_: REST_US)
    monkeypatch.setattr("prunec.backends.arm64.target.qemu", lambda: "qemu")
    found = plan(model, target="arm64", speedup=1.5)
    assert all("modelled" in layer.why for layer in found.plan.layers if layer.pattern != DENSE)
    time = found.plan.time
    assert time is not None and time.modelled and 0.6 < time.share <= 1 / 1.5 and time.ci95 == (time.share, time.share)
    assert "Cortex-A76" in time.machine
    assert time.predicted == pytest.approx(time.share, abs=0.02) and time.error < 0.02  # times add up
    assert "PC469" in {warning.code for warning in found.warnings}
    curve, warnings = sweep(model, 2, output=tmp_path, target="arm64", samples=24, cache=False)
    assert "PC469" in {warning.code for warning in warnings}
    assert all(p.time is not None and p.time.modelled for p in curve.plans.values())
    _, warnings = sweep(model, 2, output=tmp_path, target="arm64", samples=24, cache=False)  # nothing is left to do
    assert "PC469" in {warning.code for warning in warnings} and "Cortex-A76" in curve.question.machine
    row = curve.to_json()["points"][0]
    assert "Cortex-A76" in row["modelled_for"] and "ci95" not in row["speedup"] and row["zeros"] > 0
    page = (tmp_path / "curve.html").read_text()
    assert "modelled for Cortex-A76" in page and "measured on" not in page


def test_what_is_beside_the_layers_takes_its_time_whatever_they_do(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("dense", "sparse")}
    for folder in folders.values():
        folder.mkdir()
    dense = write_layers(folders["dense"], {"a": 300.0, "b": 600.0})
    write_layers(folders["sparse"], {"a": 100.0, "new": 7.0})  # b has no model with zeros, new none without
    watch = ModelledWatch(dense, 100.0)
    told = list[tuple[int, int]]()
    (share,) = watch.shares(
        [("sparse", lambda: contextlib.nullcontext(folders["sparse"]))], how={}, progress=lambda *at: told.append(at)
    )
    assert share.median == pytest.approx(0.8) and share.width == 0 and share.dense_ms == pytest.approx(1.0)
    assert told == [(0, 1), (1, 1)]


def modelled(run_ms: float | None) -> Modelled:
    dense = None if run_ms is None else 10.0
    return Modelled(core="core", note="", dense_ms=9, sparse_ms=4, run_dense_ms=dense, run_ms=run_ms, layers=())


@pytest.mark.parametrize("budget", [Budget.of("speedup", 2), Budget.of("latency-ms", 5)])
def test_a_finished_model_is_judged_by_what_it_is_modelled_to_take(budget: Budget) -> None:
    assert gate_modelled(modelled(5.0 * (1 + MODEL_SLACK)), budget) is None
    missed = gate_modelled(modelled(5.2), budget)
    assert missed is not None and missed.diagnostic.code == "PC529" and "modelled to be 1.92" in str(missed.diagnostic)
    unknown = gate_modelled(modelled(None), budget)
    assert unknown is not None and "qemu" in (unknown.diagnostic.hint or "")


def test_what_was_counted_for_one_shape_is_not_taken_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = Builder(0)
    b.output(b.relu(b.conv(b.input("x", [1, 8, None, None]), 16)))
    ir.save(b.model(), tmp_path / "model.onnx")
    asked = list[object]()
    monkeypatch.setattr(Arm64, "rest_us", lambda self, model, shapes: asked.append(model) or float(len(asked)))
    options = PlanOptions(target="arm64", cache=Cache(tmp_path / "kept"))
    for size in (16, 64, 16):
        opened = open_model(tmp_path / "model.onnx", {"x": [1, 8, size, size]})
        assert watches._rest_us(Arm64(), opened, options) == (1.0 if size == 16 else 2.0)
    assert len(asked) == 2


def test_an_arm_machine_needs_no_qemu_but_for_budgets_of_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("shutil.which", lambda name: None)
    (tmp_path / "model.json").write_text(
        '{"name": "m", "inputs": [], "outputs": [], "weights_bytes": 0, "arena_bytes": 0, "steps": []}'
    )
    assert emulator() == [] and step_counts(tmp_path) is None
    with pytest.raises(PrunecError, match=r"PC455.*counted"):
        Arm64().check_timed(1)


def test_a_model_that_is_modelled_to_be_slower_is_refused() -> None:
    asked = Budget.of("max-drop", 0.1)
    quality = QualityRecord(metric="m", dense=1, pruned=1, drop=0, drop_upper=None, data="user", samples=9)
    for run_ms, codes in ((9.0, []), (10.5, ["PC535"])):
        said = refusals(quality, None, min_speedup=None, max_drop=0.1, budget=asked, modelled=modelled(run_ms))
        assert [no.diagnostic.code for no in said] == codes


def test_an_interrupted_pass_of_the_code_generator_is_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    from prunec.backends.cpu.isa import AVX2
    from prunec.backends.cpu.kernels import compiler

    def build(*_: object, **__: object) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(compiler.tvm.tirx, "build", build)
    for text, kind in (("", KeyboardInterrupt), ("no such pass", RuntimeError)):  # noqa: B007
        with pytest.raises(kind):
            compiler._compiled([], AVX2)


def test_which_targets_have_times() -> None:
    assert isinstance(Wasm(), Measuring) and not isinstance(Wasm(), Modelling)
    assert isinstance(Arm64(), Modelling) and not isinstance(Arm64(), Measuring)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"target": "wasm", "speedup": 2, "threads": 2}, "PC440"),
        ({"target": "arm64", "speedup": 2, "threads": 2}, "PC440"),
        ({"target": "wasm", "speedup": 2, "precision": "int8"}, r"PC230.*wasm in int8"),
        ({"target": "arm64", "speedup": 2, "precision": "int8"}, r"PC230.*arm64 in int8"),
        ({"target": "wasm", "speedup": 2, "relaxed_simd": True}, r"PC222.*relaxed SIMD"),
        ({"target": "wasm", "speedup": 2, "build": False}, r"PC222.*--no-build"),
        ({"target": "wasm", "max_drop": 0.1, "build": False}, r"PC222.*--no-build"),
        ({"target": "wasm", "sparsity": 0.5, "finer": 0.1}, r"PC208.*layer by layer"),
        ({"target": "arm64", "sparsity": 0.5, "finer": 0.1}, r"PC208.*layer by layer"),
        ({"target": "wasm", "speedup": 2, "pattern": "channel"}, r"PC230.*not of widths"),
    ],
)
def test_what_no_time_is_known_of_is_refused(model: Path, tmp_path: Path, options: dict[str, Any], code: str) -> None:
    with pytest.raises(PrunecError, match=code):
        compile(model, output=tmp_path / "out", samples=24, cache=False, **options)


@pytest.mark.slow
def test_a_package_for_wasm_is_as_fast_as_was_asked(model: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"samples": 24, "cache": False, "allocation": "uniform", "max_drop": 1}
    found = compile(model, output=tmp_path / "out", target="wasm", speedup=1.25, **options)
    assert found.measurements is not None and found.measurements.speedup["vs_prunec_dense"].ci95[1] >= 1.25


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("qemu-aarch64") is None, reason="needs qemu-user")
def test_a_package_for_arm64_is_modelled_as_fast_as_was_asked(model: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"samples": 24, "cache": False, "allocation": "uniform"}
    found = compile(model, output=tmp_path / "out", target="arm64", speedup=1.5, **options)
    assert found.measurements is None and found.modelled is not None and found.plan.time is not None
    assert found.modelled.run_ms is not None and found.modelled.run_dense_ms is not None
    share = found.modelled.run_ms / found.modelled.run_dense_ms
    assert share == pytest.approx(found.plan.time.share, rel=MODEL_SLACK) and share <= (1 + MODEL_SLACK) / 1.5
    kept = json.loads((tmp_path / "out" / "measurements.json").read_text())
    assert "speedup" not in kept and kept["modelled"]["run_ms"] == found.modelled.run_ms
    page = (tmp_path / "out" / "report.html").read_text()
    assert "a whole run" in page and "Not measured" in page
