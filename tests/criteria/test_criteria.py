"""Each criterion against its formula, written out naively."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from prunec.catalog import CRITERIA
from prunec.criteria import ScoreContext, create, score_groups
from prunec.criteria.base import ridge
from prunec.criteria.lamp import lamp
from prunec.diagnostics import PrunecError
from prunec.graph import Consumer, Group
from tests.criteria.small import attention, branches, chain, context, fake_gradients, free, grouped, prepare
from tests.graph.builder import Builder

MODELS = {"chain": chain(), "grouped": grouped(), "branches": branches(), "attention": attention()}
ALL = sorted(set(CRITERIA) - {"bn-scale"})


def score(name: str, group: Group, given: ScoreContext) -> np.ndarray:
    return create(name).score(group, given)


def weight_of(given: ScoreContext, node: str) -> np.ndarray:
    name = given.nodes[node].inputs[1].name
    return given.array(name or "").astype(np.float64)


def consumed(given: ScoreContext, consumer: Consumer, position: int) -> np.ndarray:
    """All weights that multiply one input position, by the definition of each operator."""
    node, weight = given.nodes[consumer.node], weight_of(given, consumer.node)
    if node.op_type == "Conv":
        groups = node.attributes["group"].as_int() if "group" in node.attributes else 1
        per_in, per_out = weight.shape[1], weight.shape[0] // groups
        group = position // per_in
        return weight[group * per_out : (group + 1) * per_out, position % per_in].ravel()
    transposed = node.op_type == "Gemm" and "transB" in node.attributes and node.attributes["transB"].as_int()
    return weight[:, position] if transposed else weight[position]


@pytest.mark.parametrize("power", [1, 2])
def test_magnitude_is_the_mean_of_normalised_producer_and_consumer_norms(power: int) -> None:
    given = context(chain())
    first, second = (weight_of(given, n.name or "") for n in given.model.graph if n.op_type == "Conv")
    rows, columns = ((np.abs(first) ** power).sum((1, 2, 3)), (np.abs(second) ** power).sum((0, 2, 3)))
    expected = (rows / rows.mean() + columns / columns.mean()) / 2
    assert score(f"l{power}", free(given.analysis)[0], given) == pytest.approx(expected, rel=1e-6)


def test_magnitude_sees_the_depthwise_kernel_and_both_ends_of_a_residual() -> None:
    given = context(grouped())
    group = next(g for g in free(given.analysis) if g.size == 48)
    nodes = {m.node for m in group.members if m.role != "carrier"}
    assert len(nodes) == 4  # two producers, two consumers
    convolutions = [n for n in given.model.graph if n.op_type == "Conv"]
    depthwise = next(n for n in convolutions if given.array(n.inputs[1].name).shape[1] == 1)
    before = score("l2", group, given)
    value = depthwise.inputs[1]
    assert value is not None and value.const_value is not None
    array = value.const_value.numpy().copy()
    array[5] *= 10
    value.const_value = ir.tensor(array, name=value.name)
    assert score("l2", group, given)[5] > before[5]


def test_lamp_divides_by_all_that_is_as_strong() -> None:
    assert lamp(np.array([1.0, 4.0, 3.0, 4.0, 0.0])) == pytest.approx([1 / 12, 4 / 8, 3 / 11, 4 / 8, 0])
    assert lamp(np.zeros(3)) == pytest.approx(np.zeros(3))


def test_fpgm_sums_the_distances_between_filters() -> None:
    given = context(chain())
    first = weight_of(given, next(n.name or "" for n in given.model.graph if n.op_type == "Conv")).reshape(16, -1)
    expected = np.array([sum(np.linalg.norm(f - g) for g in first) for f in first])
    assert score("fpgm", free(given.analysis)[0], given) == pytest.approx(expected / expected.mean(), rel=1e-6)


def test_bn_scale_reads_folded_and_remaining_batch_norms() -> None:
    b = Builder()
    x = b.relu(b.batch_norm(b.conv(b.input("x", [1, 3, 6, 6]), 16)))  # folded
    y = b.op("Concat", [b.conv(x, 8), b.conv(x, 8)], axis=1)
    b.output(b.conv(b.relu(b.batch_norm(y)), 4))  # stays: it follows a Concat
    model = b.model()
    norms = [n for n in model.graph if n.op_type == "BatchNormalization"]
    gammas = [np.abs(model.graph.initializers[n.inputs[1].name].const_value.numpy()) for n in norms]
    given = context(model)
    groups = free(given.analysis)
    assert [g.size for g in groups] == [16, 8, 8]
    assert score("bn-scale", groups[0], given) == pytest.approx(gammas[0])
    assert np.concatenate([score("bn-scale", g, given) for g in groups[1:]]) == pytest.approx(gammas[1])


def test_bn_scale_refuses_a_group_without_a_batch_norm() -> None:
    given = context(chain())
    with pytest.raises(PrunecError, match="no batch norm") as caught:
        score("bn-scale", free(given.analysis)[0], given)
    assert caught.value.diagnostic.code == "PC209"
    assert "--exclude conv" in (caught.value.diagnostic.hint or "")


def test_random_depends_on_the_seed_and_the_group_alone() -> None:
    given = context(chain())
    first, second = free(given.analysis)[:2]
    assert np.array_equal(score("random", first, given), score("random", first, given))
    assert not np.array_equal(score("random", first, given), score("random", first, dataclasses.replace(given, seed=1)))
    assert not np.array_equal(score("random", first, given)[:16], score("random", second, given)[:16])


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_wanda_and_flap_sum_over_every_position_of_every_consumer(model: ir.Model) -> None:
    given = context(model)
    for group in free(given.analysis):
        wanda, flap = np.zeros(group.size), np.zeros(group.size)
        for consumer in given.analysis.consumers:
            for position, channel in enumerate(consumer.channels):
                if consumer.weight_index is not None and channel in group.channels:
                    local = int(np.flatnonzero(group.channels == channel)[0])
                    weight, seen = consumed(given, consumer, position), given.statistics[consumer.node]
                    wanda[local] += np.abs(weight).sum() * np.sqrt(seen.second_moment_diag[position])
                    flap[local] += (seen.second_moment_diag[position] - seen.mean[position] ** 2) * (weight**2).sum()
        assert score("wanda", group, given) == pytest.approx(wanda, rel=1e-5)
        assert score("flap", group, given) == pytest.approx(flap, rel=1e-5)


@pytest.mark.parametrize("model", [chain(), attention()], ids=["chain", "attention"])
def test_obs_is_the_error_after_the_best_compensation(model: ir.Model) -> None:
    """Against the Schur complement: the variance of x_P that is left once x_K explained what it can."""
    given = context(model)
    for group in free(given.analysis):
        expected = np.zeros(group.size)
        for columns in given.columns(group):
            covariance = given.statistics[columns.consumer.node].covariance
            assert covariance is not None
            damped = covariance + np.diag(ridge(covariance))
            for channel in range(group.size):
                gone = columns.index == channel
                a = np.linalg.solve(damped[~gone][:, ~gone], damped[~gone][:, gone])
                left = damped[gone][:, gone] - damped[gone][:, ~gone] @ a
                weight = columns.weight[gone].astype(np.float64)
                expected[channel] += np.einsum("pr,pq,qr->", weight, left, weight)
        assert score("obs", group, given) == pytest.approx(expected, rel=1e-6)


def test_obs_falls_back_to_the_fluctuation_and_says_so() -> None:
    given = context(chain())
    limited = {
        node: dataclasses.replace(s, covariance=None, inverse_diag=None, limited="9000 channels, above the limit")
        for node, s in given.statistics.items()
    }
    given = dataclasses.replace(given, statistics=limited)
    for group in free(given.analysis):
        assert score("obs", group, given) == pytest.approx(score("flap", group, given))
    assert {n.code for n in given.notes} == {"PC212"} and "9000 channels" in given.notes[0].message
    assert len(given.notes) == len({n.where for n in given.notes})  # said once per layer


def test_a_product_of_activations_is_scored_by_weight_norms_with_a_note() -> None:
    b = Builder()
    x = b.input("x", [1, 6, 16])
    q, k = b.linear(x, 32), b.op("Transpose", [b.linear(x, 32)], perm=[0, 2, 1])
    b.output(b.op("MatMul", [q, k]))
    given = context(b.model())
    (group,) = free(given.analysis)
    assert score("wanda", group, given) == pytest.approx(score("l2", group, given))
    assert [n.code for n in given.notes] == ["PC212"]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_scores_are_float64_finite_and_repeatable(name: str, model: ir.Model) -> None:
    given = context(model)
    groups = free(given.analysis)
    first, second = (score_groups(create(name), groups, given) for _ in range(2))
    for group in groups:
        assert first[group.id].dtype == np.float64 and np.array_equal(first[group.id], second[group.id])
        assert (first[group.id] >= 0).all() and first[group.id].std() > 0


@pytest.mark.parametrize("name", sorted(set(ALL) - {"random", "fpgm", "activation"}))
def test_a_channel_without_weights_comes_last(name: str) -> None:
    given = context(chain())
    group = free(given.analysis)[0]
    for member in group.members:
        value = given.model.graph.initializers[member.tensor]
        assert value.const_value is not None
        array = np.moveaxis(value.const_value.numpy().copy(), member.axis, 0)
        array[member.index == 7] = 0
        value.const_value = ir.tensor(np.ascontiguousarray(np.moveaxis(array, 0, member.axis)), name=value.name)
    given = replace(given, gradients=fake_gradients(given.model, given.analysis))
    scores = score(name, group, given)
    assert scores.argmin() == 7 and scores[7] == 0


@pytest.mark.parametrize("name", ["wanda", "flap", "obs", "activation"])
def test_criteria_that_need_data_say_which_layer_has_none(name: str) -> None:
    given = ScoreContext(*prepare(chain()))
    with pytest.raises(PrunecError) as caught:
        score(name, free(given.analysis)[0], given)
    found = caught.value.diagnostic
    assert found.code == "PC210" and (found.where or "").startswith("conv") and "--calib" in (found.hint or "")
    assert not create(name).data_free and create(name).needs


def test_a_weight_that_is_not_a_number_is_refused() -> None:
    given = context(chain())
    group = free(given.analysis)[0]
    value = given.model.graph.initializers[group.producers()[0].tensor]
    assert value.const_value is not None
    array = value.const_value.numpy().copy()
    array[3] = np.nan
    value.const_value = ir.tensor(array, name=value.name)
    with pytest.raises(PrunecError, match="not a finite number") as caught:
        score_groups(create("l1"), [group], given)
    assert caught.value.diagnostic.code == "PC211" and "conv" in (caught.value.diagnostic.where or "")


def test_data_free_criteria_need_no_statistics() -> None:
    given = ScoreContext(*prepare(chain()))
    names = [n for n in ALL if create(n).data_free]
    assert names == ["fpgm", "l1", "l2", "lamp", "random"]
    for name in names:
        assert create(name).needs == frozenset()
        score_groups(create(name), free(given.analysis), given)
