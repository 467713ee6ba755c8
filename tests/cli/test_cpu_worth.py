"""Layers that are no faster with zeros stay dense: what is measured, what it decides, and what is said about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("tvm", reason="needs the [tvm] extra")

from prunec.backends.base import LayerTimes
from prunec.backends.cpu import kernel_table
from prunec.backends.cpu.building import build
from prunec.backends.cpu.checking import samples_for
from prunec.backends.cpu.compiled import CompiledModel
from prunec.backends.cpu.isa import host_isa
from prunec.backends.cpu.kernel_table import layer_times, with_zeros
from prunec.backends.cpu.peak import peak_gflops
from prunec.backends.cpu.target import Cpu
from prunec.backends.cpu.timing import node_times, time_layers
from prunec.cache import Cache
from prunec.diagnostics import PrunecError
from prunec.passes.canonicalise import canonicalise
from prunec.passes.sparsify import LayerPattern, prove_patterns
from prunec.patterns import parse
from prunec.plan.plan import LayerPlan
from tests.backends.kernel_support import needs_x86
from tests.cli.helpers import prunec, refuses
from tests.cli.networks import residual
from tests.cli.test_cpu import FAST, TARGET
from tests.graph.builder import Builder

pytestmark = needs_x86
QUARTER = LayerPattern(parse("block:16x1"), 0.75)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ir.save(residual([1, 3, 17, 15], 32), tmp_path / "model.onnx")
    return tmp_path


def planned(folder: Path, *options: str) -> dict[str, Any]:
    """Layers of the plan by name."""
    done = prunec("plan", "model.onnx", *TARGET, "--samples", "10", *options, "-o", "plan.json", "--json", cwd=folder)
    assert done.code == 0, done.err
    return {layer["node"]: layer for layer in json.loads((folder / "plan.json").read_text())["layers"]}


def sparse_layers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Those that get zeros where all are faster with them."""
    set_times(monkeypatch, slow=())
    return [name for name, layer in planned(folder).items() if layer["pattern"] != "dense"]


def set_times(monkeypatch: pytest.MonkeyPatch, slow: tuple[str, ...]) -> None:
    def times(self: Cpu, model: ir.Model, layers: dict[str, LayerPattern], *_: object) -> dict[str, LayerTimes]:
        return {name: LayerTimes(10.0, 12.0 if name in slow else 5.0) for name in layers}

    monkeypatch.setattr(Cpu, "times", times)


@pytest.mark.parametrize("threads", [1, 2])
def test_layers_are_measured_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    model = canonicalise(ir.load(folder / "model.onnx"))
    names = [node.name or "" for node in model.graph if node.op_type == "Conv"][1:]
    wanted = dict.fromkeys(names, QUARTER)
    cache = Cache(tmp_path / "cache")
    found = layer_times(model, wanted, host_isa(), threads=threads, cache=cache)
    assert set(found) == set(names) and all(t.dense_us > 0 and t.sparse_us > 0 for t in found.values())
    if threads == 1:
        assert all(times.is_faster for times in found.values()), found  # a quarter of the work
    monkeypatch.setattr(kernel_table, "write_artifact", None)  # whoever compiles again fails
    assert layer_times(model, wanted, host_isa(), threads=threads, cache=cache) == found
    with pytest.raises(TypeError):
        layer_times(model, wanted, host_isa(), threads=threads)
    with pytest.raises(TypeError):
        layer_times(model, wanted, host_isa(), threads=3, cache=cache)


def test_the_zeros_that_are_timed_have_the_pattern(folder: Path) -> None:
    model = canonicalise(ir.load(folder / "model.onnx"))
    wanted = dict.fromkeys([node.name or "" for node in model.graph if node.op_type == "Conv"][1:], QUARTER)
    proofs = prove_patterns(with_zeros(model, wanted), wanted)
    assert len(proofs) == 2 and all(proof.passed and proof.zeros == 0.75 for proof in proofs.values())
    assert not any(proof.passed for proof in prove_patterns(model, wanted).values())


def test_layers_of_several_steps_are_timed_as_a_whole(tmp_path: Path) -> None:
    """A recurrent layer zeroes its state, a transposed convolution has phases: none is as fast as its fastest step."""
    b = Builder(0, 14)
    found = b.op("LSTM", [b.input("x", [32, 1, 64]), b.weight(1, 256, 64), b.weight(1, 256, 64)], 3, hidden_size=64)
    image = b.op("Transpose", [b.op("Unsqueeze", [found[0], b.const(np.array([0]))])], perm=[0, 4, 1, 2, 3])
    b.output(b.conv_transpose(b.op("Squeeze", [image, b.const(np.array([3]))]), 32))
    model = canonicalise(b.model())
    names = [node.name or "" for node in model.graph if node.op_type in ("LSTM", "ConvTranspose")]
    wanted = dict.fromkeys(names, QUARTER)
    proofs = prove_patterns(with_zeros(model, wanted), wanted).values()
    assert len(proofs) == 2 and all(proof.passed and proof.zeros == 0.75 for proof in proofs)
    package = build(model, host_isa(), tmp_path)
    feeds = samples_for((), package.ready)[0][0]
    compiled = CompiledModel(package.folder)
    steps = compiled.profile(feeds)
    for name in names:
        own = [taken for nodes, taken in steps if nodes == name]
        assert len(own) > 1 and node_times(steps)[name] == sum(own)
    layers = [LayerPlan(node=name, tensor="", pattern="block:16x1", level=0.75, why="") for name in names]
    for timed in time_layers(compiled, None, package.ready[0], layers, feeds, peak_gflops(host_isa(), 1)):
        assert 0 < timed.peak_share < 1, timed
    compiled.close()


def test_a_slow_layer_stays_dense_unless_it_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = sparse_layers(folder, monkeypatch)
    set_times(monkeypatch, slow=(first,))
    layers = planned(folder)
    assert layers[first]["pattern"] == "dense" and layers[second]["pattern"] == "block:16x1"
    assert layers[first]["why"] == "no faster with zeros: 12.0 µs, dense 10.0 µs"
    done = prunec("compile", "model.onnx", *TARGET, *FAST, "-o", "out", "--no-build", "--json", cwd=folder)
    assert "PC461" not in {w["code"] for w in done.json["warnings"]}  # for another machine: nothing was timed
    named = planned(folder, "--include", first, "--include", second)
    assert {named[name]["pattern"] for name in (first, second)} == {"block:16x1"}


def test_layers_get_the_finest_blocks_that_cost_little(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = sparse_layers(folder, monkeypatch)
    taken = {first: {16: 5.0, 8: 5.4, 4: 9.0}, second: {16: 5.0, 8: 6.0, 4: 5.5}}

    def times(self: Cpu, model: ir.Model, layers: dict[str, LayerPattern], *_: object) -> dict[str, LayerTimes]:
        return {name: LayerTimes(10.0, taken[name][own.pattern.rows]) for name, own in layers.items()}

    monkeypatch.setattr(Cpu, "times", times)
    layers = planned(folder, "--finer", "0.1")
    assert (layers[first]["pattern"], layers[second]["pattern"]) == ("block:8x1", "block:4x1")
    assert layers[first]["why"] == "5.40 µs, with block:16x1 5.00 µs"
    assert planned(folder, "--finer", "0.05")[first]["pattern"] == "block:16x1"
    assert planned(folder, "--finer", "0.1") == layers
    replay = ("--plan", "plan.json", "--no-cache", "--no-measure", "--json", "-o", "out")
    done = prunec("compile", "model.onnx", "--target", "cpu", *replay, cwd=folder)
    assert done.code == 0, done.err
    proofs = {p["layer"]: p for p in done.json["verification"]["patterns"]["layers"]}
    assert {name: own["pattern"] for name, own in proofs.items()} == {first: "block:8x1", second: "block:4x1"}
    assert all(own["passed"] and own["zeros"] == 0.75 for own in proofs.values())


def test_layers_that_tall_blocks_do_not_fit_get_finer_ones(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_times(monkeypatch, slow=())
    ir.save(residual([1, 3, 17, 15], 48), folder / "model.onnx")
    tall = ("--target", "cpu", "--pattern", "block:32x1", "--sparsity", "0.75", "--samples", "10")
    refuses(prunec("plan", "model.onnx", *tall, cwd=folder), "PC225")
    done = prunec("plan", "model.onnx", *tall, "--finer", "0", "-o", "plan.json", cwd=folder)
    assert done.code == 0, done.err
    layers = json.loads((folder / "plan.json").read_text())["layers"]
    assert [layer["pattern"] for layer in layers] == ["dense", "block:4x1", "block:4x1", "dense"]  # all as fast


@pytest.mark.parametrize(
    "options",
    [
        ("--target", "cpu", "--pattern", "block:4x1", "--sparsity", "0.5"),  # nothing is finer
        ("--target", "cpu", "--pattern", "block:16x1", "--sparsity", "0.5", "--finer", "-1"),
        ("--target", "cpu", "--pattern", "block:16x1", "--sparsity", "0.5", "--allocation", "lamp"),
        ("--target", "cpu", "--pattern", "block:16x1", "--speedup", "2"),
        ("--target", "onnx", "--pattern", "block:16x1", "--sparsity", "0.5"),
        ("--target", "onnx", "--flops", "0.5"),
    ],
)
def test_finer_blocks_that_cannot_be_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    set_times(monkeypatch, slow=())
    finer = () if "--finer" in options else ("--finer", "0.1")
    done = prunec("plan", "model.onnx", *options, *finer, "--samples", "10", cwd=folder)
    refuses(done, "PC208")
    assert "--finer" in done.err


def test_it_is_said_and_written_down(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = sparse_layers(folder, monkeypatch)
    set_times(monkeypatch, slow=(first,))
    done = prunec("plan", "model.onnx", *TARGET, "--samples", "10", "-o", "plan.json", "--json", cwd=folder)
    assert done.code == 0, done.err
    said = " ".join(done.err.split())
    assert "PC461" in said and f"1 of 2 layers stay dense: {first} (no faster with zeros" in said
    replay = ("compile", "model.onnx", "--target", "cpu", "--no-cache", "--no-measure")
    for plan, out in (("plan.json", "out"), ("out/plan.json", "again")):
        done = prunec(*replay, "--plan", plan, "-o", out, cwd=folder)
        assert done.code == 0, done.err
    assert "no faster with zeros" in (folder / "out" / "report.html").read_text()
    assert (folder / "again" / "model.onnx").read_bytes() == (folder / "out" / "model.onnx").read_bytes()


def test_where_no_layer_is_faster_nothing_is_pruned(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = sparse_layers(folder, monkeypatch)
    set_times(monkeypatch, slow=tuple(both))
    done = prunec("compile", "model.onnx", *TARGET, *FAST, "-o", "out", cwd=folder)
    refuses(done, "PC225")
    assert "no faster with zeros" in done.err and not (folder / "out").exists()


def test_what_cannot_be_timed_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PrunecError("PC453", "there is no C compiler", hint="pip install ziglang")

    monkeypatch.setattr(Cpu, "check", refuse)
    done = prunec("plan", "model.onnx", *TARGET, "--samples", "10", cwd=folder)
    assert done.code == 0 and "PC462" in done.err and "there is no C compiler" in done.err
    monkeypatch.undo()
    monkeypatch.setattr(Cpu, "times", None)  # --no-measure times nothing
    done = prunec("compile", "model.onnx", *TARGET, *FAST, "-o", "out", "--no-measure", cwd=folder)
    assert done.code == 0, done.err
