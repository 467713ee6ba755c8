"""Losses of single layers from masks, solved layers and small changes: layers whose losses are known beforehand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import prunec
from prunec.api.loss_curves import LossCurves, loss_curves
from prunec.api.loss_sources import quick_effort
from prunec.api.options import PlanOptions
from prunec.api.progress import silent
from prunec.api.zeroth_order import sensitivity
from prunec.cache import Cache
from prunec.diagnostics import PrunecError
from prunec.frontend.calibration import Calibration, open_calibration
from prunec.passes.compensate.layers import Layer
from prunec.passes.sparsify.supernet import Supernet, Ways
from prunec.passes.sparsify.views import prunable_layers
from prunec.patterns import parse
from prunec.plan.levels import LADDER, grid
from prunec.plan.plan import Plan
from prunec.statistics.output_errors import OutputErrors
from tests.graph.builder import Builder

GAINS = {"loud": 4.0, "middle": 1.0, "quiet": 0.1}


def branches() -> ir.Model:
    """y = Σ gain · W x with independent channels x: what a branch loses goes with the square of its gain."""
    b = Builder(0)
    x = b.input("x", [8, 32])
    same = b.rng.standard_normal((32, 32)).astype(np.float32)
    found = None
    for name, gain in GAINS.items():
        weight = b.const(same, f"weight_{name}")
        own = b.op("Mul", [b.op("MatMul", [x, weight]), b.const(np.float32(gain), f"gain_{name}")])
        found = own if found is None else b.op("Add", [found, own])
    b.output(found)
    return b.model()


def twice() -> ir.Model:
    """A x + 0.3 B x, the input being there twice: without the small half the other half can do all that both did."""
    b = Builder(1)
    x = b.input("x", [16, 16])
    both = b.rng.standard_normal((24, 32)) * np.repeat([1, 0.3], 16)
    b.output(b.op("Gemm", [b.op("Concat", [x, x], axis=1), b.const(both.astype(np.float32))], transB=1))
    return b.model()


def data(model: ir.Model) -> Calibration:
    rng = np.random.default_rng(5)
    value = model.graph.inputs[0]
    shape = [int(d) for d in value.shape or ()]
    batches = [{"x": rng.standard_normal(shape).astype(np.float32)} for _ in range(40)]
    return open_calibration(batches, model, samples=40 * shape[0])


def curves(model: ir.Model, source: str, *, pattern: str = "unstructured", **options: object) -> LossCurves:
    layers = {name: own for name, own in prunable_layers(model).items() if isinstance(own, Layer)}
    asked = PlanOptions(target="onnx", pattern=pattern, losses=source, **options)  # type: ignore[arg-type]
    return loss_curves(layers, model, parse(pattern), "loss", data(model), asked, silent)


def tensor_of(model: ir.Model) -> dict[str, str]:
    return {node.name or "": node.inputs[1].name or "" for node in model.graph if node.op_type == "MatMul"}


@pytest.mark.parametrize("source", ["masked", "solved", "zeroth-order"])
@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
def test_every_source_finds_the_order_of_gains(source: str, pattern: str) -> None:
    model = branches()
    found, tensors = curves(model, source, pattern=pattern), tensor_of(model)
    losses = found.losses or {name: curve[16] for name, curve in found.curves.items()}
    by_tensor = {tensors[name]: float(loss) for name, loss in losses.items()}
    loud, middle, quiet = (by_tensor[f"weight_{name}"] for name in GAINS)
    assert loud / middle == pytest.approx(16, rel=0.1) and middle / quiet == pytest.approx(100, rel=0.1)


def test_a_small_change_of_a_linear_layer_says_what_a_mask_loses() -> None:
    """y = W x: L(ΔW) = Σ(ΔW x)²/Σ(W x)², which for independent x is ΔW's energy over that of W."""
    model = branches()
    masked, small = curves(model, "masked"), curves(model, "zeroth-order")
    for name, curve in small.curves.items():
        assert curve[0] == 0 and (np.diff(curve) >= 0).all()
        assert curve[16] == pytest.approx(masked.curves[name][16], rel=0.25)
    (name,) = (name for name, tensor in tensor_of(model).items() if tensor == "weight_loud")
    errors = OutputErrors(model, data(model), 320)
    own = sensitivity(model, name, [np.ones(32)], errors, np.random.default_rng(0))
    whole = sum(GAINS.values()) ** 2
    energy = float(np.square(prunable_layers(model)[name].matrix()).sum())  # type: ignore[union-attr]
    assert own * energy == pytest.approx(GAINS["loud"] ** 2 / whole, rel=0.1)


def test_what_solving_makes_up_for_is_no_loss() -> None:
    found = (curves(twice(), source, pattern="block:24x1").curves for source in ("solved", "masked"))
    solved, masked = (next(iter(own.values())) for own in found)
    half, most = (int(np.searchsorted(grid(), level)) for level in (0.5, 0.75))
    assert solved[half] < 0.05 * masked[half] and masked[half] == pytest.approx(0.3**2 / 1.09, rel=0.2)
    assert solved[most] > 0.2


def supernet(model: ir.Model, cache: Cache | None = None) -> Supernet:
    ways = Ways(parse("unstructured"), LADDER, "quick")
    return Supernet(model, list(tensor_of(model)), ways, data(model), cache)


def test_models_are_put_together_from_solved_layers() -> None:
    model = branches()
    first, second, third = tensor_of(model)
    with supernet(model) as found:
        other = prunable_layers(found.assembled({first: 0.25, second: 0.875}))
    before = prunable_layers(model)
    zeros = {name: float((own.matrix() == 0).mean()) for name, own in other.items() if isinstance(own, Layer)}
    assert zeros[first] == pytest.approx(0.25, abs=0.01) and zeros[second] == pytest.approx(0.875, abs=0.01)
    third_before, third_after = before[third], other[third]
    assert isinstance(third_before, Layer) and isinstance(third_after, Layer)
    assert np.array_equal(third_before.matrix(), third_after.matrix())


def test_solved_layers_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were finished before a Ctrl-C too."""
    from prunec.passes.sparsify import supernet as module

    model, real, solved = branches(), module.solve, list[float]()

    def counted(problem: object, pattern: object, level: float, effort: object) -> object:
        if len(solved) == 2 * len(LADDER):
            raise KeyboardInterrupt
        solved.append(level)
        return real(problem, pattern, level, effort)  # type: ignore[arg-type]

    cache = Cache(tmp_path)
    monkeypatch.setattr(module, "solve", counted)
    with pytest.raises(KeyboardInterrupt):
        supernet(model, cache)
    solved.clear()
    found = supernet(model, cache)
    assert len(solved) == len(LADDER)
    monkeypatch.setattr(module, "solve", None)
    again = supernet(model, cache)
    levels = dict.fromkeys(tensor_of(model), 0.5)
    for name, own in prunable_layers(found.assembled(levels)).items():
        other = prunable_layers(again.assembled(levels))[name]
        assert isinstance(own, Layer) and isinstance(other, Layer) and np.array_equal(own.matrix(), other.matrix())


def test_layers_are_solved_beforehand_without_much_effort() -> None:
    assert [quick_effort(solver) for solver in (None, "best", "sparsegpt", "udfc")] == [
        "quick",
        "quick",
        "sparsegpt",
        "wanda",
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    b = Builder(0)
    x = b.relu(b.conv(b.input("x", [1, 3, 8, 8]), 32, 3))
    for _ in range(2):
        x = b.relu(b.conv(x, 32, 3))
    b.output(b.conv(x, 8, 3))
    ir.save(b.model(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.mark.parametrize("source", [None, "solved", "zeroth-order"])
def test_the_plan_and_explain_say_where_losses_come_from(path: Path, source: str | None, tmp_path: Path) -> None:
    plan = prunec.plan(
        path, pattern="block:4x1", sparsity=0.6, allocation="loss", losses=source, samples=16,
        output=tmp_path / "plan.json",
    ).plan  # fmt: skip
    assert plan.losses == (source or "masked") == Plan.load(tmp_path / "plan.json").losses
    told = prunec.explain(tmp_path / "plan.json").losses  # type: ignore[union-attr]
    assert told is not None and told.startswith(source or "masked")
    even = prunec.plan(path, pattern="block:4x1", sparsity=0.6, samples=16, output=tmp_path / "even.json").plan
    assert even.losses is None and "losses" not in (tmp_path / "even.json").read_text()


def test_where_nothing_reads_losses_they_are_refused(path: Path) -> None:
    def asked(match: str, **options: object) -> None:
        with pytest.raises(PrunecError, match=match) as no:
            prunec.plan(path, samples=16, **options)  # type: ignore[arg-type]
        assert no.value.diagnostic.hint and no.value.diagnostic.where == "--losses"

    asked("PC208.*cut of channels", losses="solved", flops=0.5)
    asked("PC208.*asks for no losses", losses="solved", pattern="block:4x1", sparsity=0.5, allocation="erk")
    asked("PC208.*the same share", losses="solved", pattern="block:4x1", sparsity=0.5)
    asked("PC208.*every layer gets 2:4", losses="solved", pattern="2:4")
    with pytest.raises(PrunecError, match=r"PC203.*masked, solved, zeroth-order"):
        prunec.plan(path, losses="guessed", pattern="block:4x1", sparsity=0.5, allocation="loss")
    with pytest.raises(PrunecError, match=r"PC208.*leaves them masked"):
        prunec.compile(
            path, pattern="block:4x1", sparsity=0.5, allocation="loss", losses="solved", compensate=False, samples=16,
            dry_run=True,
        )  # fmt: skip
