"""Choosing kernels by measuring: the faster one wins, winners are remembered at once, and nothing else changes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("tvm", reason="needs the [tvm] extra")

from prunec.backends.cpu import tuning
from prunec.backends.cpu.isa import host_isa
from prunec.backends.cpu.lower.candidates import Choice, Product, by_rule, candidates
from prunec.backends.cpu.lower.prepare import prepare
from prunec.backends.cpu.parts import split_model
from prunec.backends.cpu.tuning import Tuning, identity
from prunec.cache import Cache
from tests.backends.kernel_support import needs_x86
from tests.cli.helpers import ENVIRONMENT
from tests.graph.builder import Builder

pytestmark = needs_x86


def network() -> ir.Model:
    """Two convolutions of different shapes, large enough to be measured."""
    b = Builder(0)
    x = b.input("x", [1, 16, 20, 20])
    b.output(b.conv(b.relu(b.conv(x, 32)), 32))
    return prepare(b.model())


def products(model: ir.Model) -> list[Product]:
    found: list[Product] = []

    def collect(product: Product) -> Choice:
        found.append(product)
        return by_rule(product)

    split_model(model, host_isa(), collect)
    return found


def tuner(store: Cache | None, said: list[tuple[str, int, int]] | None = None, threads: int = 1) -> Tuning:
    progress = (lambda *step: None) if said is None else (lambda *step: said.append(step))
    return Tuning(host_isa(), "quick", threads, store, progress)


def scripted(monkeypatch: pytest.MonkeyPatch, wanted: Mapping[int, int]) -> None:
    """Times as if candidate `wanted[n]` of the n-th product were the fastest; the user ends it where there is none."""
    real, count = tuning._fastest, iter(range(100))

    def fastest(built_of, functions, most, budget, threads):  # type: ignore[no-untyped-def]
        number, calls = next(count), iter(range(100000))
        if number not in wanted:
            raise KeyboardInterrupt
        monkeypatch.setattr(
            tuning, "seconds", lambda run, threads: 0.1 if next(calls) % len(built_of) == wanted[number] else 1.0
        )
        return real(built_of, functions, most, budget, threads)

    monkeypatch.setattr(tuning, "_fastest", fastest)


def test_the_fastest_candidate_is_chosen_and_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, said = network(), list[tuple[str, int, int]]()
    first, second = products(model)
    assert len(candidates(first)) > 2 and candidates(first)[0] == by_rule(first)
    scripted(monkeypatch, {0: 1, 1: 2})
    choose = tuner(Cache(tmp_path), said).chooser(model)
    assert [choose(first), choose(second)] == [candidates(first)[1], candidates(second)[2]]
    assert said[0] == ("choosing kernels", 0, 2) and said[-1] == ("choosing kernels", 2, 2)
    monkeypatch.setattr(tuning, "callables", lambda *_, **__: pytest.fail("measured again"))
    again = tuner(Cache(tmp_path)).chooser(model)
    assert [again(first), again(second)] == [choose(first), choose(second)]


def test_an_interrupted_choice_goes_on_where_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    scripted(monkeypatch, {0: 1})
    with pytest.raises(KeyboardInterrupt):
        tuner(Cache(tmp_path)).chooser(model)
    monkeypatch.undo()
    scripted(monkeypatch, {0: 2})
    first, second = products(model)
    choose = tuner(Cache(tmp_path)).chooser(model)
    assert [choose(first), choose(second)] == [candidates(first)[1], candidates(second)[2]]


def test_a_small_gain_does_not_overrule_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    calls = iter(range(100000))
    monkeypatch.setattr(tuning, "seconds", lambda run, threads: 1.0 - 1e-5 * next(calls))
    choose = tuner(None).chooser(model)
    assert all(choose(product) == by_rule(product) for product in products(model))


def test_a_measurement_runs_every_candidate(tmp_path: Path) -> None:
    """No script: real times; whatever wins computes the same model."""
    model = network()
    choose = tuner(Cache(tmp_path)).chooser(model)
    assert all(choose(product) in candidates(product) for product in products(model))


def test_what_a_measurement_depends_on() -> None:
    first, second = products(network())
    assert identity(first, 1, "quick") != identity(second, 1, "quick")
    assert identity(first, 1, "quick") != identity(first, 2, "quick") != identity(first, 2, "full")
    sparser = Product(**{**vars(first), "matrix": first.matrix * (np.arange(first.matrix.shape[1]) % 2)})
    assert identity(sparser, 1, "quick") != identity(first, 1, "quick")
    other = Product(**{**vars(first), "matrix": first.matrix * 2})
    assert identity(other, 1, "quick") == identity(first, 1, "quick")


def test_the_process_may_use_the_same_cpus_afterwards() -> None:
    script = (
        "import os; before = os.sched_getaffinity(0)\n"
        "from tests.backends.test_cpu_tuning import network, tuner\n"
        "from prunec.backends.cpu.isa import host_isa\n"
        "from prunec.backends.cpu.parts import split_model\n"
        "model = network()\n"
        "split_model(model, host_isa(), tuner(None, threads=2).chooser(model))\n"
        "assert os.sched_getaffinity(0) == before, os.sched_getaffinity(0)"
    )
    done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
