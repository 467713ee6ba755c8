"""The check that a canonical model answers what its source does."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from prunec.diagnostics import GateError
from prunec.passes.canonicalise import canonicalise
from prunec.verify.rewriting import check_rewriting
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
    """A sigmoid of differences of numbers around 1e4, most of them far below zero: what is left is rounding."""
    b = Builder()
    x = b.batch_norm(b.conv(b.input("x", [1, 64, 8, 8]), 64))
    x = b.op("Sub", [b.op("Mul", [x, b.const(np.full(1, 2e4, np.float32))]), b.const(np.full(1, 1e5, np.float32))])
    b.output(b.op("Sigmoid", [x]))
    return b.model()


def test_behind_a_saturated_sigmoid_its_input_decides() -> None:
    source = saturated()
    assert check_rewriting(source, canonicalise(source), seed=0) < 1e-5


def test_a_planted_error_in_front_of_a_sigmoid_is_found() -> None:
    source = saturated()
    canonical = canonicalise(source)
    weight = next(node for node in canonical.graph if node.op_type == "Conv").inputs[1]
    assert weight is not None and weight.const_value is not None
    weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(1.1), name=weight.name)
    with pytest.raises(GateError, match="PC506"):
        check_rewriting(source, canonical, seed=0)
