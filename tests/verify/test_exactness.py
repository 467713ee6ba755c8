"""The proof of a cut passes for right cuts, and a planted error makes it fail with the right group's name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from prunec.diagnostics import GateError
from prunec.graph import Analysis, analyse
from prunec.passes.slice_channels import slice_channels
from prunec.verify import checker
from prunec.verify.checker import Outcome
from prunec.verify.culprit import find_culprit
from prunec.verify.exactness import check_exactness, exactness_record, prove, prove_groups, random_trial
from prunec.verify.inputs import one_image
from tests.graph.builder import Builder
from tests.graph.checks import prepare

IMAGE = [1, 3, 8, 8]


def chain(layers: int = 5) -> tuple[ir.Model, Analysis]:
    b = Builder()
    x = b.input("x", IMAGE)
    for _ in range(layers):
        x = b.relu(b.batch_norm(b.conv(x, 8)))
    b.output(b.conv(x, 4))
    return prepare(b.model())


def half(analysis: Analysis, groups: list[str] | None = None) -> np.ndarray:
    keeps = {
        g.id: np.arange(g.size) % 2 == 0
        for g in analysis.groups
        if g.pinned is None and (groups is None or g.id in groups)
    }
    return analysis.alive(keeps)


def test_a_right_cut_is_proved_in_both_precisions() -> None:
    model, analysis = chain()
    outcomes = prove(model, analysis, half(analysis), seed=3, random_keeps=2)
    assert [outcome.seed for outcome in outcomes] == [3, 4, 5]
    assert all(outcome.float32 <= 1e-5 for outcome in outcomes)
    assert all(outcome.float64 is not None and outcome.float64 <= 1e-12 for outcome in outcomes)


def test_groups_checked_counts_the_groups_that_are_cut() -> None:
    model, analysis = chain()
    record = check_exactness(model, analysis, half(analysis, ["g1", "g3"]), seed=0)
    assert record.groups_checked == 2 and record.passed and 0 <= record.class_a_max_rel <= 1e-5


def test_the_record_states_the_error_that_decided() -> None:
    _, analysis = chain()
    alive = half(analysis, ["g1"])
    both = [Outcome("plan", 0, 4e-5, 2e-13), Outcome("random", 1, 3e-6, 1e-13)]
    record = exactness_record(both, analysis, alive)
    assert (record.class_a_max_rel, record.decided_in, record.tolerance) == (2e-13, "float64", 1e-12)
    assert record.float32_max_rel == 4e-5
    record = exactness_record(both[1:], analysis, alive)
    assert (record.class_a_max_rel, record.decided_in, record.tolerance) == (3e-6, "float32", 1e-5)


def spoil(model: ir.Model, node: str) -> None:
    """The weight of one layer, off by a bit more than rounding."""
    weight = next(n for n in model.graph if n.name == node).inputs[1]
    assert weight is not None and weight.const_value is not None
    weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(1.001), name=weight.name)


@pytest.mark.parametrize("guilty", ["g0", "g2", "g4"])
def test_a_planted_error_names_the_group_and_its_nodes(guilty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, analysis = chain()
    group = next(g for g in analysis.groups if g.id == guilty)
    producer = group.producers()[0].node

    def wrong(model: ir.Model, analysis: Analysis, alive: np.ndarray) -> ir.Model:
        cut = slice_channels(model, analysis, alive)
        if not alive[group.channels].all():
            spoil(cut, producer)
        return cut

    monkeypatch.setattr(checker, "slice_channels", wrong)
    with pytest.raises(GateError) as refusal:
        check_exactness(model, analysis, half(analysis), seed=0, random_keeps=0)
    diagnostic = refusal.value.diagnostic
    assert diagnostic.code == "PC501" and refusal.value.exit_code == 1
    assert diagnostic.where is not None and diagnostic.where.startswith(f"{guilty}: ") and producer in diagnostic.where


def test_a_spoiled_cut_model_is_refused_even_if_cutting_again_is_right() -> None:
    model, analysis = chain()
    cut = slice_channels(model, analysis, half(analysis))
    spoil(cut, next(n.name or "" for n in cut.graph if n.op_type == "Conv"))
    with pytest.raises(GateError, match="PC501"):
        check_exactness(model, analysis, half(analysis), cut_model=cut, seed=0)


def test_a_cut_that_does_not_run_is_refused() -> None:
    model, analysis = chain()
    alive = half(analysis)
    other = slice_channels(model, analysis, half(analysis, ["g0"]))
    broken = slice_channels(model, analysis, alive)
    conv = next(n for n in other.graph if n.op_type == "Conv")
    assert conv.inputs[1] is not None
    target = next(n for n in broken.graph if n.name == [m.name for m in other.graph if m.op_type == "Conv"][2])
    assert target.inputs[1] is not None
    target.inputs[1].const_value = conv.inputs[1].const_value
    with pytest.raises(GateError, match="does not run"):
        check_exactness(model, analysis, alive, cut_model=broken, seed=0)


def test_every_group_is_checked_alone_where_that_is_cheap() -> None:
    model, analysis = chain()
    errors = prove_groups(model, analysis, half(analysis, ["g1", "g3"]), seed=0)
    assert errors is not None and [(error.id, error.kind) for error in errors] == [("g1", "A"), ("g3", "A")]
    assert all(error.max_rel <= 1e-5 and error.passed for error in errors)
    assert prove_groups(model, analysis, half(analysis), seed=0, macs=1) is None


def test_float64_is_skipped_beyond_its_budget_and_says_so() -> None:
    model, analysis = chain()
    (outcome,) = prove(model, analysis, half(analysis), seed=0, random_keeps=0, float64_macs=1)
    assert outcome.float64 is None and outcome.float64_skipped is not None and "limit" in outcome.float64_skipped


def test_float64_decides_where_float32_rounds_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    model, analysis = chain()
    monkeypatch.setattr(checker, "FLOAT32_TOLERANCE", -1.0)
    record = check_exactness(model, analysis, half(analysis), seed=0)
    assert record.passed
    with pytest.raises(GateError, match="not decided in float64"):
        check_exactness(model, analysis, half(analysis), seed=0, float64_macs=1)


TEXTS: dict[str, str] = {
    "half precision": """<ir_version: 9, opset_import: ["" : 18]>
        g (float16[N, 4] x) => (float16[N, 2] y) <float16[8, 4] a, float16[2, 8] b> {
            h = Gemm<transB=1>(x, a)  r = Relu(h)  y = Gemm<transB=1>(r, b) }""",
    "integer and float outputs, dynamic batch": """<ir_version: 9, opset_import: ["" : 18]>
        g (float[N, 4] x) => (float[N, 2] y, int64[N, 1] best) <float[8, 4] a, float[2, 8] b> {
            h = Gemm<transB=1>(x, a)  r = Relu(h)  y = Gemm<transB=1>(r, b)  best = ArgMax<axis=1>(y) }""",
    "NaN in both": """<ir_version: 9, opset_import: ["" : 18]>
        g (float[2, 4] x) => (float[2, 2] y) <float[8, 4] a, float[2, 8] b> {
            h = Gemm<transB=1>(x, a)  r = Relu(h)  z = Gemm<transB=1>(r, b)  y = Log(z) }""",
    "token ids": """<ir_version: 9, opset_import: ["" : 18]>
        g (int64[N, T] ids) => (float[N, T, 2] y) <float[8, 5] a, float[5, 8] c, float[8, 2] b> {
            e = Gather(a, ids)  h = MatMul(e, c)  r = Relu(h)  y = MatMul(r, b) }""",
}


def parsed(text: str) -> ir.Model:
    """ONNX text whose declared values (they follow the outputs) are weights with random numbers."""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for info in model.graph.value_info:
        shape = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(rng.standard_normal(shape).astype(dtype), info.name)
        )
    del model.graph.value_info[:]
    return ir.from_proto(model)


@pytest.mark.parametrize("name", TEXTS)
def test_kinds_of_outputs_and_inputs(name: str) -> None:
    model, analysis = prepare(parsed(TEXTS[name]))
    trial = random_trial(analysis, 7)
    assert not trial.alive.all()
    outcomes = prove(model, analysis, trial.alive, seed=0)
    assert len(outcomes) == 2 and all(outcome.float64 is not None for outcome in outcomes)


BLIND: dict[str, str] = {
    "a label that does not change": """<ir_version: 9, opset_import: ["" : 18]>
        g (float[2, 4] x) => (int64[2, 1] best) <float[8, 4] a, float[8, 8] c, float[1, 8] b> {
            h = Gemm<transB=1>(x, a)  r = Relu(h)  m = Gemm<transB=1>(r, c)  s = Relu(m)
            z = Gemm<transB=1>(s, b)  best = ArgMax<axis=1>(z) }""",
    "nothing found": """<ir_version: 9, opset_import: ["" : 18]>
        g (float[2, 4] x) => (int64[2, K] found) <float[8, 4] a, float[8, 8] c, float[3, 8] b> {
            h = Gemm<transB=1>(x, a)  r = Relu(h)  m = Gemm<transB=1>(r, c)  s = Relu(m)
            z = Gemm<transB=1>(s, b)  w = Sin(z)  p = Abs(w)  f = Floor(p)  found = NonZero(f) }""",
}


@pytest.mark.parametrize("name", BLIND)
def test_outputs_that_do_not_show_the_cut_are_not_taken_for_a_proof(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, analysis = prepare(parsed(BLIND[name]))
    free = [group for group in analysis.groups if group.pinned is None]
    alive = half(analysis)
    (outcome,) = prove(model, analysis, alive, seed=0, random_keeps=0)
    assert outcome.compared == f"{len(free)} consumers" and outcome.float64 is not None

    def wrong(model: ir.Model, analysis: Analysis, alive: np.ndarray) -> ir.Model:
        cut = slice_channels(model, analysis, alive)
        spoil(cut, free[1].producers()[0].node)
        return cut

    monkeypatch.setattr(checker, "slice_channels", wrong)
    with pytest.raises(GateError, match="PC501"):
        check_exactness(model, analysis, alive, seed=0, random_keeps=0)


def test_analysis_holds_for_the_float64_copy() -> None:
    model, analysis = chain(1)
    assert [g.size for g in analyse(model).groups] == [g.size for g in analysis.groups]


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [({"c"}, ["c"]), ({"a", "b"}, ["a", "b"]), ({"a", "e"}, ["a", "b", "c", "d", "e"])],
)
def test_find_culprit(wrong: set[str], expected: list[str]) -> None:
    is_wrong: Callable[[object], bool] = lambda part: wrong <= set(part)  # type: ignore[call-overload]  # noqa: E731
    assert find_culprit(list("abcde"), is_wrong) == expected


def test_float64_takes_one_image_where_float32_has_seen_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several where float64 alone decides, and whatever is no image is taken whole."""
    b = Builder()
    b.output(b.conv(b.relu(b.conv(b.input("x", ["n", 3, 8, 8]), 8)), 4))
    model, analysis = prepare(b.model())
    batches: list[int] = []
    original = checker.evaluate_float64
    monkeypatch.setattr(
        checker, "evaluate_float64", lambda m, feeds: (batches.append(len(feeds["x"])), original(m, feeds))[1]
    )
    prove(model, analysis, half(analysis), seed=0, random_keeps=0)
    assert batches == [1, 1]
    batches.clear()
    monkeypatch.setattr(checker, "FLOAT32_TOLERANCE", -1.0)
    prove(model, analysis, half(analysis), seed=0, random_keeps=0)
    assert batches == [2, 2]
    feeds = {"x": np.zeros((2, 3), np.float32)}
    flat = Builder()
    flat.output(flat.relu(flat.input("x", ["n", 3])))
    assert one_image(prepare(flat.model())[0], feeds) is feeds
