"""The check that a canonical model answers what its source does."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from prunec.diagnostics import GateError
from prunec.passes.canonicalise import canonicalise
from prunec.verify import rewriting
from prunec.verify.inputs import candidate_feeds
from prunec.verify.once import answers
from prunec.verify.rewriting import _without_saturation, check_rewriting
from tests.graph.builder import Builder


def model() -> ir.Model:
    b = Builder()
    x = b.relu(b.batch_norm(b.conv(b.input("x", [1, 3, 8, 8]), 8)))
    b.output(b.conv(x, 4))
    return b.model()


def test_canonicalisation_is_right_up_to_rounding() -> None:
    source = model()
    assert check_rewriting(source, canonicalise(source), seed=0) < 1e-5


def test_a_planted_error_is_found() -> None:
    source = model()
    canonical = canonicalise(source)
    weight = next(node for node in canonical.graph if node.op_type == "Conv").inputs[1]
    assert weight is not None and weight.const_value is not None
    weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(1.01), name=weight.name)
    with pytest.raises(GateError, match="PC506"):
        check_rewriting(source, canonical, seed=0)


def saturated() -> ir.Model:
    """A sigmoid of differences of numbers around 1e7, the largest about -14: what is left of it is rounding."""

    def built(shift: float) -> ir.Model:
        b = Builder()
        x = b.batch_norm(b.conv(b.input("x", [1, 64, 8, 8]), 64))
        x = b.op("Mul", [x, b.const(np.array([1e6], np.float32))])
        b.output(b.op("Sigmoid", [b.op("Sub", [x, b.const(np.array([shift], np.float32))])]))
        return b.model()

    plain = built(0)
    sums = _without_saturation(plain)
    (largest,) = (value.max() for value in answers(sums, next(candidate_feeds(sums, 0)), 1).values())
    return built(float(largest) + 14)


def test_behind_a_saturated_sigmoid_its_input_decides() -> None:
    source = saturated()
    assert check_rewriting(source, canonicalise(source), seed=0) < 1e-5


def test_the_output_of_a_saturated_sigmoid_would_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewriting, "_saturated_outputs", lambda model: {})
    source = saturated()
    canonical = canonicalise(source)
    with pytest.raises(GateError, match="PC506"):
        check_rewriting(source, canonical, seed=0)


def test_a_planted_error_in_front_of_a_sigmoid_is_found() -> None:
    source = saturated()
    canonical = canonicalise(source)
    weight = next(node for node in canonical.graph if node.op_type == "Conv").inputs[1]
    assert weight is not None and weight.const_value is not None
    weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(1.1), name=weight.name)
    with pytest.raises(GateError, match="PC506"):
        check_rewriting(source, canonical, seed=0)
