"""Training through quantisers: the integers that are shipped come nearer, on the same grids, with the same zeros."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from prunec.backends.onnx.session import make_session, run
from prunec.graph.shapes import constant
from prunec.passes.held_out import held_out_error
from prunec.passes.quantise import quantise
from prunec.passes.quantise.masters import on_grids, with_masters
from prunec.plan.recovery import RecoveryPlan, RecoveryRun
from tests.recover.nets import Case, cut, sparse

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
quantised = pytest.importorskip("prunec.recover.quantised")
pytestmark = pytest.mark.torch


@cache
def case(bits: int) -> tuple[Case, ir.Model]:
    """Half of the weights zero, not refitted, at their nearest values."""
    found = sparse()
    return found, quantise(found.pruned, found.data, rounding="nearest", bits=bits).model


def recovered(method: str, *counts: int, bits: int = 8, **options: Any) -> Any:
    own, model = case(bits)
    runs = tuple(RecoveryRun(of=count, done=count) for count in counts)
    plan = RecoveryPlan.model_validate({"method": method, "runs": runs, **options})
    return quantised.recover_quantised(own.dense, model, bits, own.kept, own.data, plan)


def initializers(model: ir.Model) -> dict[str, np.ndarray]:
    found = {name: constant(value) for name, value in model.graph.initializers.items()}
    return {name: array for name, array in found.items() if array is not None}


def test_masters_compute_what_the_integers_do_and_go_back_to_them() -> None:
    own, model = case(8)
    masters = with_masters(model, 8)
    onnx.checker.check_model(ir.to_proto(masters.model), full_check=True)
    feeds = own.data.batches[0]
    ours, theirs = (run(make_session(m), feeds) for m in (masters.model, model))
    for name, array in theirs.items():
        assert np.abs(ours[name] - array).max() <= 2e-2 * np.abs(array).max()
    again = on_grids(model, masters, masters.model)
    assert all(np.array_equal(array, initializers(again)[name]) for name, array in initializers(model).items())


def test_torch_computes_what_onnx_runtime_does() -> None:
    from prunec.torch.from_ir import to_graph_module

    own, model = case(8)
    feeds = own.data.batches[0]
    with torch.no_grad():
        found = to_graph_module(model)(*(torch.from_numpy(array) for array in feeds.values())).numpy()
    (wanted,) = run(make_session(model, optimise=False), feeds).values()
    assert np.abs(found - wanted).max() <= 2e-2 * np.abs(wanted).max()
    assert np.abs(found - wanted).mean() <= 1e-3 * np.abs(wanted).max()


@pytest.mark.parametrize("bits", [8, 7])
@pytest.mark.parametrize(("method", "counts"), [("bias", (40,)), ("blocks", (25, 25)), ("full", (40,))])
def test_the_shipped_integers_come_nearer_and_keep_zeros_and_grids(
    method: str, counts: tuple[int, ...], bits: int
) -> None:
    own, model = case(bits)
    found = recovered(method, *counts, bits=bits)
    assert found.is_kept and found.error_after < 0.9 * found.error_before
    assert found.error_after == pytest.approx(held_out_error(own.dense, found.model, _Judged(own), 1), rel=0.5)
    before, after = initializers(model), initializers(found.model)
    assert before.keys() == after.keys()
    weights = [name for name, array in before.items() if array.dtype == np.int8 and array.ndim > 1]
    assert weights and all(not after[name][before[name] == 0].any() for name in weights)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed and all(before[name].dtype in (np.int8, np.int32) for name in changed)
    assert bool(changed & set(weights)) == (method != "bias")
    assert all(np.abs(after[name].astype(int)).max() <= (127 if bits == 8 else 63) for name in weights)
    onnx.checker.check_model(ir.to_proto(found.model), full_check=True)


class _Judged:
    """All that is held out."""

    def __init__(self, own: Case) -> None:
        self.held_out = own.data.held_out


def test_cut_channels_stay_gone() -> None:
    own = cut()
    model = quantise(own.pruned, own.data, rounding="nearest").model
    plan = RecoveryPlan(method="full", runs=tuple(RecoveryRun(of=15, done=15) for _ in range(3)))
    found = quantised.recover_quantised(own.dense, model, 8, own.kept, own.data, plan)
    assert found.is_kept and found.error_after < 0.9 * found.error_before
    before, after = initializers(model), initializers(found.model)
    assert {name: array.shape for name, array in before.items()} == {name: array.shape for name, array in after.items()}


def test_the_same_steps_give_the_same_bytes() -> None:
    one, two = (recovered("full", 12) for _ in range(2))
    assert ir.to_proto(one.model).SerializeToString() == ir.to_proto(two.model).SerializeToString()
    assert [run.done for run in one.runs] == [12] and one.runs == two.runs


def test_integers_that_are_no_nearer_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judged on the integers, whatever the masters were worth."""
    asked: list[ir.Model] = []

    def losses(subject: Any, model: ir.Model) -> np.ndarray:
        asked.append(model)
        return np.full(4, len(asked), np.float64)

    monkeypatch.setattr(quantised, "_losses", losses)
    found = recovered("bias", 5)
    assert not found.is_kept and found.model is case(8)[1] is asked[0] and len(asked) == 2
    assert "PC342" in [warning.code for warning in found.warnings]


def test_gradients_pass_the_rounding_and_stop_where_values_clip() -> None:
    from prunec.torch.operators.quantise import dequantize_linear, quantize_linear

    x = torch.tensor([[0.26, -0.26, 9.0], [0.6, -9.0, 0.0]], requires_grad=True)
    scale, zero = torch.tensor([0.5, 0.1, 0.02]), torch.zeros(3, dtype=torch.int8)
    found = dequantize_linear(quantize_linear(x, scale, zero, axis=1), scale, zero, axis=1)
    assert torch.allclose(found, torch.tensor([[0.5, -0.3, 2.54], [0.5, -9.0, 0.0]]))
    found.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[1, 1, 0], [1, 1, 1]]


def test_integers_that_something_else_reads_are_refused() -> None:
    from prunec.diagnostics import PrunecError
    from prunec.torch.from_ir import to_graph_module

    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 4] x) => (int8[1, 4] y)
    <float s = {0.1}, int8 z = {0}>
    { y = QuantizeLinear(x, s, z) }
    """
    model = ir.from_proto(onnx.parser.parse_model(text))
    with pytest.raises(PrunecError, match="PC040") as caught:
        to_graph_module(model)
    assert "something else" in str(caught.value)
