"""The proof of an order says yes to what is exact and no to a planted error."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from prunec.diagnostics import GateError
from prunec.graph.orders import analyse_orders, cells
from prunec.passes.permute import permute_channels
from prunec.verify.order_exactness import prove_order
from tests.graph.checks import prepare
from tests.graph.test_micro import build


def reordered(model: ir.Model) -> ir.Model:
    orders = analyse_orders(model)
    source = np.arange(orders.channel_count)
    for cell in cells(orders):
        source[cell.classes] = cell.classes[::-1]
    return permute_channels(model, orders, source)


@pytest.mark.parametrize("name", ["conv_bn_relu_conv", "residual", "depthwise", "attention", "gru", "qdq_residual"])
def test_an_order_is_proved_in_both_precisions(name: str) -> None:
    model, _ = prepare(build(name))
    outcomes = prove_order(model, reordered(model), seed=0)
    assert len(outcomes) == 2 and all(outcome.passed for outcome in outcomes)
    assert all(outcome.float64 is not None and outcome.float64 <= 1e-12 for outcome in outcomes)


def test_one_weight_in_the_wrong_place_is_seen() -> None:
    model, _ = prepare(build("conv_relu_conv"))
    wrong = reordered(model)
    value = next(v for v in wrong.graph.initializers.values() if v.shape is not None and len(v.shape) == 4)
    assert value.const_value is not None
    array = value.const_value.numpy().copy()
    array[[0, 1]] = array[[1, 0]]
    value.const_value = ir.tensor(array, name=value.name)
    with pytest.raises(GateError, match="channels reordered"):
        prove_order(model, wrong, seed=0)
