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
