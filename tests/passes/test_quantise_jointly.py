"""Zeros and integers: what is pruned first and rounded after, and what is solved for both on quantised activations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from prunec.backends.onnx.segment import Segment, proto_of
from prunec.backends.onnx.session import make_session, run
from prunec.graph.shapes import constant
from prunec.passes.canonicalise import canonicalise
from prunec.passes.compensate import Options, compensate
from prunec.passes.quantise import Quantised, Rounding, Target, driver, quantise
from prunec.passes.quantise.prepare import prepare
from prunec.passes.quantise.roundings import TRIED
from prunec.passes.quantise.strip import dequantised, strip
from prunec.passes.quantise.sweep import sweep
from prunec.passes.quantise.write import with_activations
from prunec.passes.sparsify import LayerPattern, Sparsifier, prove_patterns
from prunec.patterns import parse
from prunec.statistics.output_errors import OutputErrors
from tests.graph.builder import Builder
from tests.passes.test_quantise import Data

PATTERN = LayerPattern(parse("block:4x4"), 0.75)


def network() -> ir.Model:
    """Two convolutions between a stem and a head, whose maps are the output."""
    b = Builder(3)
    stem = b.relu(b.conv(b.input("x", [2, 3, 12, 12]), 16, bias=True))
    body = b.relu(b.conv(b.relu(b.conv(stem, 16, bias=True)), 16, bias=True))
    b.output(b.conv(body, 8, bias=True))
    return canonicalise(b.model())


def correlated(seed: int, count: int = 8) -> Iterator[dict[str, np.ndarray]]:
    """Neighbouring pixels are alike, as in pictures: solvers have something to go by."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        x = rng.standard_normal((2, 3, 12, 12)).cumsum(axis=2).cumsum(axis=3) / 6
        yield {"x": x.astype(np.float32)}


DATA = Data(correlated)


@pytest.fixture(scope="module")
def sparse() -> tuple[ir.Model, Target]:
    """A model whose inner convolutions lost their smallest blocks, and what it was made of."""
    dense = network()
    names = [str(node.name) for node in dense.graph if node.op_type == "Conv"][1:3]
    patterns = dict.fromkeys(names, PATTERN)
    own = Target.of(dense)
    done = compensate(dense, dense, own.analysis, own.alive, DATA, Options(), None, Sparsifier(patterns, "magnitude"))
    assert all(proof.passed for proof in prove_patterns(done.model, patterns).values())
    return done.model, Target(dense, own.analysis, own.alive, patterns, dense)


@pytest.fixture(scope="module")
def joint(sparse: tuple[ir.Model, Target]) -> Quantised:
    return quantise(sparse[0], DATA, target=sparse[1])


def test_the_joint_solve_is_no_worse_than_one_after_the_other(
    sparse: tuple[ir.Model, Target], joint: Quantised
) -> None:
    sequential = quantise(sparse[0], DATA, target=sparse[1], rounding="nearest")
    assert sequential.error_swept is None and joint.error_nearest == sequential.error_nearest
    assert joint.error_swept is not None
    judge = OutputErrors(sparse[1].dense, DATA, 64)
    assert judge.of(joint.model) <= judge.of(sequential.model)
    assert (joint.error_swept < joint.error_nearest) == (set(joint.rounding) != {"nearest"})


@pytest.mark.parametrize("worse", ["joint", "sweep"])
def test_of_zeros_found_anew_and_those_that_there_were_the_model_that_errs_less_is_taken(
    sparse: tuple[ir.Model, Target], monkeypatch: pytest.MonkeyPatch, worse: str
) -> None:
    """Whichever it is: here one of the two walks leaves a model whose weights are all zero."""
    real, walked = driver.sweep, list[str]()

    def spoilt(found: Any, *arguments: Any, rounding: str, **options: Any) -> Any:
        walked.append(rounding)
        done = real(found, *arguments, rounding=rounding, **options)
        if rounding != worse:
            return done
        empty = done.model.clone()
        for value in empty.graph.initializers.values():
            array = constant(value)
            if array is not None and array.ndim > 1 and array.dtype == np.float32:
                value.const_value = ir.Tensor(np.zeros_like(array), name=value.name)
        return replace(done, model=empty)

    whole = quantise(sparse[0], DATA, target=sparse[1])
    monkeypatch.setattr(driver, "sweep", spoilt)
    found = quantise(sparse[0], DATA, target=sparse[1])
    assert walked == ["joint", "sweep"] and found.error_swept == pytest.approx(whole.error_swept, rel=0.05)
    walked.clear()
    lost = quantise(sparse[0], DATA, target=sparse[1], rounding="sweep")
    assert walked == ["sweep"] and whole.error_swept is not None and lost.error_swept is not None
    assert (lost.error_swept > 2 * whole.error_swept) == (worse == "sweep")


def test_every_layer_is_rounded_no_worse_and_blocks_are_found_anew(sparse: tuple[ir.Model, Target]) -> None:
    model, target = sparse
    look = partial(prepare, calibration=DATA, exclude=(), seed=0, threads=1, progress=lambda what, done, of: None)
    found, grids = look(model), look(target.dense).grids
    done = sweep(replace(found, grids=grids), DATA, target, bits=8, seed=0, threads=1)
    assert all(layer.error <= layer.error_nearest for layer in done.layers.values())
    again = [done.layers[name] for name in target.patterns]
    assert all(layer.error < 0.5 * layer.error_nearest for layer in again)
    assert any(layer.method.startswith("joint") for layer in again)
    assert all(proof.passed for proof in prove_patterns(done.model, target.patterns).values())


def test_what_is_shipped_has_the_pattern_on_the_grid(sparse: tuple[ir.Model, Target], joint: Quantised) -> None:
    onnx.checker.check_model(ir.to_proto(joint.model), full_check=True)
    proofs = prove_patterns(dequantised(joint.model), sparse[1].patterns)
    assert len(proofs) == 2 and all(proof.passed and proof.zeros >= 0.75 for proof in proofs.values())
    weights = [constant(v) for v in joint.model.graph.initializers.values() if v.dtype == ir.DataType.INT8]
    integers = [array for array in weights if array is not None and array.ndim > 1]
    assert len(integers) == len(joint.layers) and all(1 < np.abs(array).max() <= 127 for array in integers)


def test_float_weights_between_quantised_activations_stay_what_they_are() -> None:
    """ONNX Runtime would round them with one scale a tensor, and the walk would correct what nothing ships."""
    model = network()
    for node in model.graph:
        if node.op_type == "Conv" and node.inputs[1] is not None:
            array = constant(node.inputs[1])
            assert array is not None
            uneven = array * np.logspace(-3, 0, len(array), dtype=np.float32).reshape(-1, 1, 1, 1)
            node.inputs[1].const_value = ir.Tensor(uneven)
    found = prepare(model, calibration=DATA, exclude=(), seed=0, threads=1, progress=lambda what, done, of: None)
    walked, feeds = with_activations(model, found.placement, found.grids), next(correlated(5))
    weights = list(walked.graph.initializers.values())
    output = str(walked.graph.outputs[0].name)
    (got,) = Segment(walked, [proto_of(n) for n in walked.graph], weights, feeds, [output], 1).run(feeds).values()
    (wanted,) = run(make_session(walked, optimise=False), feeds).values()
    assert np.abs(got - wanted).max() < 1e-3 * np.abs(wanted).max()


def test_stripped_of_its_quantisers_it_is_the_float_model(joint: Quantised) -> None:
    stripped = strip(joint.model)
    assert not {node.op_type for node in stripped.model.graph} & {"QuantizeLinear", "DequantizeLinear"}
    assert set(stripped.layers) == set(joint.layers) and len(stripped.grids) >= joint.values
    onnx.checker.check_model(ir.to_proto(stripped.model), full_check=True)


@pytest.mark.parametrize(
    ("rounding", "methods"),
    [
        ("adaround", {"nearest", "nearest+bias", "adaround"}),
        ("sweep", {"nearest", "nearest+bias", "sweep"}),
        ("best", {"nearest", "nearest+bias", "adaround", "sweep", "joint sweep", "joint ADMM"}),
    ],
)
def test_every_layer_takes_the_best_of_what_its_rounding_tries(
    sparse: tuple[ir.Model, Target], rounding: Rounding, methods: set[str]
) -> None:
    """And keeps its zeros, exactly, unless they are found anew, in the same pattern."""
    model, target = sparse
    own = target if "joint" in TRIED[rounding] else replace(target, patterns={})
    found = prepare(model, calibration=DATA, exclude=(), seed=0, threads=1, progress=lambda what, done, of: None)
    done = sweep(found, DATA, own, bits=8, seed=0, threads=1, rounding=rounding)
    used = {layer.method for layer in done.layers.values()}
    assert used <= methods and used & {rounding, *methods} - {"nearest", "nearest+bias"}
    assert all(layer.error <= layer.error_nearest for layer in done.layers.values())
    assert all(proof.passed for proof in prove_patterns(done.model, target.patterns).values())
    if rounding != "best":
        before, after = ({v.name: constant(v) for v in m.graph.initializers.values()} for m in (model, done.model))
        for name, weight in before.items():
            now = after.get(name)
            if weight is not None and weight.ndim == 4 and now is not None:
                assert not now[weight == 0].any() and not np.signbit(now[weight == 0]).any()


def test_learnt_directions_bring_a_dense_model_nearer() -> None:
    """Weights of 7 bits, whose roundings are twice as large."""
    model = network()
    plain = quantise(model, DATA, rounding="nearest", bits=7)
    found = quantise(model, DATA, rounding="adaround", bits=7)
    assert found.error_swept is not None and found.error_swept < 0.95 * plain.error
    assert set(found.rounding) <= {"adaround", "nearest", "nearest+bias"} and "adaround" in found.rounding
