"""An interrupted run goes on from its last finished layer, to the same bytes as one that was never interrupted."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from prunec.cache import Cache
from prunec.graph import Analysis
from prunec.passes.compensate import Compensated, Options, compensate
from prunec.passes.compensate.options import Progress
from prunec.passes.sparsify import LayerPattern, Sparsifier
from prunec.patterns import parse
from tests.graph.builder import Builder
from tests.graph.checks import prepare
from tests.passes.compensate_samples import Case, Data, dense_model, input_shape, random_case
from tests.passes.recurrent_samples import stacked
from tests.passes.test_compensate import bytes_of
from tests.sparsify.test_sparsifier import build, skip, tokens

OPTIONS = Options(max_rows=512)
KINDS = ("Conv", "MatMul", "LSTM", "GRU")


class Killed(BaseException):
    """What no handler catches."""


def sparsify(
    model: ir.Model, analysis: Analysis, cache: Cache | None, progress: Progress | None = None, pattern: str = "2:4"
) -> tuple[Compensated, Sparsifier]:
    layers = {n.name or "": LayerPattern(parse(pattern), 0.5) for n in model.graph if n.op_type in KINDS}
    solver = Sparsifier(layers, "fast")
    data = Data(input_shape(model), fit=12, held=4)
    alive = analysis.alive({})
    return compensate(model, model, analysis, alive, data, OPTIONS, progress, solver, cache), solver


def at(layer: int) -> Progress:
    def stop(done: int, total: int, what: str) -> None:
        if done == layer:
            raise Killed

    return stop


def counting(seen: list[int]) -> Progress:
    return lambda done, total, what: seen.append(done)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_a_run_goes_on_where_it_was_interrupted(
    layer: int, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "prunec")
    model, analysis = build(skip)
    whole, solver = sparsify(model, analysis, None)
    with pytest.raises(Killed):
        sparsify(model, analysis, Cache(tmp_path), at(layer))
    assert caplog.messages == ["layers solved so far are kept: the same command goes on from there"]
    solved: list[str] = []
    original = Sparsifier.solve
    monkeypatch.setattr(Sparsifier, "solve", lambda self, m, pairs, *rest: (
        solved.append(pairs.layer.name), original(self, m, pairs, *rest))[1])  # fmt: skip
    again, other = sparsify(model, analysis, Cache(tmp_path))
    assert len(solved) == 4 - layer
    assert f"{layer} of 4 layers were solved before and come from the cache" in caplog.messages
    assert bytes_of(again.model) == bytes_of(whole.model)
    assert bytes_of(other.baseline) == bytes_of(solver.baseline)
    assert again.records == whole.records and again.warnings == whole.warnings
    assert (again.error_none, again.error_chosen) == (whole.error_none, whole.error_chosen)
    assert list(other.results.values()) == list(solver.results.values())


def test_a_killed_process_leaves_what_it_finished(tmp_path: Path) -> None:
    model, analysis = build(tokens)
    child = multiprocessing.get_context("fork").Process(target=_run_and_die, args=(tmp_path,))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert len(list(tmp_path.glob("*.entry"))) == 2
    again = sparsify(model, analysis, Cache(tmp_path))[0]
    assert bytes_of(again.model) == bytes_of(sparsify(model, analysis, None)[0].model)


def _run_and_die(folder: Path) -> None:
    def kill(done: int, total: int, what: str) -> None:
        if done == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    sparsify(*build(tokens), Cache(folder), kill)


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    model, analysis = build(skip)
    first = sparsify(model, analysis, Cache(tmp_path))[0]
    steps: list[int] = []
    again = sparsify(model, analysis, Cache(tmp_path), counting(steps))[0]
    assert steps == [] and bytes_of(again.model) == bytes_of(first.model)


def test_what_decides_a_layer_decides_its_entry(tmp_path: Path) -> None:
    model, analysis = build(skip)
    sparsify(model, analysis, Cache(tmp_path))
    steps: list[int] = []
    sparsify(model, analysis, Cache(tmp_path), counting(steps), pattern="1:4")
    assert steps == [0, 1, 2, 3, 4]
    value = next(v for name, v in model.graph.initializers.items() if v.const_value is not None)
    assert value.const_value is not None
    value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1.5), name=value.name)
    steps.clear()
    sparsify(model, analysis, Cache(tmp_path), counting(steps))
    assert steps == [0, 1, 2, 3, 4]


def test_damaged_layers_are_solved_again_with_a_warning(tmp_path: Path) -> None:
    model, analysis = build(skip)
    first = sparsify(model, analysis, Cache(tmp_path))[0]
    for path in tmp_path.iterdir():
        data = bytearray(path.read_bytes())
        data[100] ^= 1
        path.write_bytes(data)
    cache, steps = Cache(tmp_path), list[int]()
    again = sparsify(model, analysis, cache, counting(steps))[0]
    assert bytes_of(again.model) == bytes_of(first.model) and steps == [0, 1, 2, 3, 4]
    assert {warning.code for warning in cache.warnings} == {"PC616"}


def test_recurrent_layers_come_back_too(tmp_path: Path) -> None:
    model, analysis = dense_model(stacked)
    whole, solver = sparsify(model, analysis, None)
    with pytest.raises(Killed):
        sparsify(model, analysis, Cache(tmp_path), at(2))
    again, other = sparsify(model, analysis, Cache(tmp_path))
    assert bytes_of(again.model) == bytes_of(whole.model)
    assert list(other.results.values()) == list(solver.results.values())


def refit(case: Case, cache: Cache | None, progress: Progress | None = None) -> Compensated:
    data = Data(input_shape(case.dense), fit=12, held=4)
    return compensate(case.dense, case.cut, case.analysis, case.alive, data, OPTIONS, progress, None, cache)


@pytest.mark.parametrize("name", ["residual", "matmul_add", "pre_activation", "conv_transpose", "stacked"])
def test_least_squares_after_a_cut_go_on_too(name: str, tmp_path: Path) -> None:
    case = random_case(stacked if name == "stacked" else name)
    whole = refit(case, None)
    with pytest.raises(Killed):
        refit(case, Cache(tmp_path), at(1))
    again = refit(case, Cache(tmp_path))
    assert bytes_of(again.model) == bytes_of(whole.model)
    assert repr(again.records) == repr(whole.records)  # NaN is not equal to itself


def test_half_precision_comes_back_as_it_was(tmp_path: Path) -> None:
    b = Builder(seed=3)
    x = b.op("Cast", [b.input("x", [4, 16])], to=int(ir.DataType.FLOAT16))
    half = [np.random.default_rng(i).standard_normal((16, 16)).astype(np.float16) / 8 for i in range(2)]
    y = x
    for weight in half:
        y = str(b.op("MatMul", [y, b.const(weight.astype(np.float16))]))
    b.output(str(b.op("Cast", [y], to=int(ir.DataType.FLOAT))))
    model, analysis = prepare(b.model())
    first = sparsify(model, analysis, Cache(tmp_path))[0]
    again = sparsify(model, analysis, Cache(tmp_path))[0]
    assert bytes_of(again.model) == bytes_of(first.model) != bytes_of(model)
