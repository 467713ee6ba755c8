"""Class C: streams under a mean over their channels. First the groups, then the numbers, in float32 and float64."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from prunec.graph import Analysis, analyse
from prunec.graph.cost import parameter_count
from prunec.passes.canonicalise import canonicalise
from prunec.passes.mask_channels import mask_channels
from prunec.passes.project_outputs import drop_projections, project_outputs
from prunec.passes.slice_channels import slice_channels
from tests.graph.builder import Builder
from tests.graph.checks import assert_exact, free_sizes, random_alive, random_feeds, relative_error, run, run_float64
from tests.graph.fuzz_sequence import SequenceGrower
from tests.graph.micros import C
from tests.graph.micros_contrib import CONTRIBS
from tests.graph.micros_residual import RESIDUALS, attention, embed, layer_norm, layer_norm_by_hand

FREE = [name for name in RESIDUALS if RESIDUALS[name].free]


def build(name: str) -> ir.Model:
    builder = Builder(seed=sorted(RESIDUALS).index(name), opset=RESIDUALS[name].opset)
    RESIDUALS[name].build(builder)
    return canonicalise(builder.model())


def stream(analysis: Analysis) -> np.ndarray:
    """Class ids of the one group of class C."""
    (group,) = [g for g in analysis.groups if g.kind == "C" and g.pinned is None]
    return group.channels


@pytest.mark.parametrize("name", RESIDUALS)
def test_groups(name: str) -> None:
    analysis = analyse(build(name), residual=True)
    assert free_sizes(analysis) == RESIDUALS[name].free
    pinned = {g.pinned.code for g in analysis.groups if g.pinned is not None}
    assert pinned <= RESIDUALS[name].pinned
    if RESIDUALS[name].free:
        assert len(stream(analysis)) == C
    else:
        assert "PC105" in pinned


@pytest.mark.parametrize("name", FREE)
def test_without_asking_the_stream_is_pinned(name: str) -> None:
    pins = [g.pinned for g in analyse(build(name)).groups if g.kind == "C"]
    assert len(pins) == 1 and pins[0] is not None and pins[0].code == "PC105"


@pytest.mark.parametrize("name", FREE)
def test_numbers(name: str) -> None:
    model = build(name)
    analysis = analyse(model, residual=True)
    cut = assert_exact(model, analysis, seed=sorted(RESIDUALS).index(name))
    assert parameter_count(cut) < parameter_count(model)


@pytest.mark.parametrize("name", FREE)
def test_numbers_in_float64(name: str) -> None:
    model = build(name)
    analysis = analyse(model, residual=True)
    rng = np.random.default_rng(sorted(RESIDUALS).index(name))
    alive = random_alive(analysis, 0.5, rng)
    feeds = random_feeds(model, rng)
    masked = run_float64(mask_channels(model, analysis, alive), feeds)
    assert relative_error(masked, run_float64(slice_channels(model, analysis, alive), feeds)) <= 1e-12


def test_the_reference_has_the_reduced_statistic() -> None:
    """Masking the consumers alone, with the full statistic, is another function: that is what class C says."""
    model = build("post_norm")
    analysis = analyse(model, residual=True)
    alive = np.ones(analysis.channel_count, bool)
    alive[stream(analysis)[:8]] = False
    feeds = random_feeds(model, np.random.default_rng(0))
    cut = run(slice_channels(model, analysis, alive), feeds)
    full = run(mask_channels(model, analyse(model), _same(analysis, analyse(model), alive)), feeds)
    assert relative_error(full, cut) > 1e-2
    assert relative_error(run(mask_channels(model, analysis, alive), feeds), cut) <= 1e-5


def _same(analysis: Analysis, other: Analysis, alive: np.ndarray) -> np.ndarray:
    """The mask of `analysis` in the class ids of `other`, by the channels of the first consumer of the stream."""
    result = np.ones(other.channel_count, bool)
    places = {c.node: c.channels for c in other.consumers}
    for consumer in analysis.consumers:
        result[places[consumer.node]] &= alive[consumer.channels]
    return result


def test_a_tied_head_follows_the_stream() -> None:
    model = build("pre_norm")
    analysis = analyse(model, residual=True)
    cut = assert_exact(model, analysis, seed=5)
    (table,) = [v for v in cut.graph.initializers.values() if v.shape is not None and list(v.shape) == [80, C // 2]]
    assert len(list(table.uses())) == 2


def encoder(pooled: bool) -> ir.Model:
    """Its output is its own stream: every token, or their mean divided by its length."""
    b = Builder(seed=3)
    x, _ = embed(b)
    y = layer_norm(b, b.op("Add", [attention(b, layer_norm_by_hand(b, x)), x]))
    if pooled:
        y = b.op("ReduceSum", [y, b.const(np.array([1]))], keepdims=0)
        y = b.op("Div", [y, b.op("ReduceL2", [y, b.const(np.array([1]))])])
    b.output(y)
    return canonicalise(b.model())


@pytest.mark.parametrize("pooled", [False, True])
def test_an_output_that_is_the_stream_gets_a_projection(pooled: bool) -> None:
    model = encoder(pooled)
    pins = [g.pinned for g in analyse(model, residual=True).groups if g.kind == "C"]
    assert [pin.code for pin in pins if pin is not None] == ["PC102"]
    projected = project_outputs(model)
    analysis = analyse(projected, residual=True)
    assert len(stream(analysis)) == C
    feeds = random_feeds(model, np.random.default_rng(1))
    assert relative_error(run(model, feeds), run(projected, feeds)) <= 1e-6
    assert [v.name for v in projected.graph.outputs] == [v.name for v in model.graph.outputs]
    cut = assert_exact(projected, analysis, seed=2)
    (weight,) = [v for name, v in cut.graph.initializers.items() if name == "prunec.projection.0.weight"]
    assert weight.shape is not None and list(weight.shape) == [C // 2, C]
    (product,) = [node for node in cut.graph if node.name == "prunec.projection.0"]
    assert len(product.outputs[0].shape or ()) == (2 if pooled else 3)


def test_a_projection_of_an_uncut_stream_goes_again() -> None:
    model = encoder(pooled=True)
    projected = project_outputs(model)
    assert len(list(projected.graph)) == len(list(model.graph)) + 2
    drop_projections(projected)
    assert [node.name for node in projected.graph] == [node.name for node in model.graph]
    feeds = random_feeds(model, np.random.default_rng(1))
    assert relative_error(run(model, feeds), run(projected, feeds)) == 0


def test_a_model_that_needs_no_projection_stays_the_same() -> None:
    model = build("post_norm")
    assert project_outputs(model) is model


@pytest.mark.parametrize("first", range(0, 100, 25))
def test_random_graphs(first: int) -> None:
    streams = 0
    for seed in range(first, first + 25):
        rng = np.random.default_rng([seed, 2])
        model = canonicalise(SequenceGrower(seed).grow(int(rng.integers(3, 12))))
        analysis = analyse(model, residual=True)
        streams += sum(g.kind == "C" and g.pinned is None for g in analysis.groups)
        assert_exact(model, analysis, seed, share=float(rng.choice([0.25, 0.5, 0.9])))
    assert streams > 0


def test_skip_norms_run_over_the_channels_that_are_left() -> None:
    """ONNX Runtime's fused norms: the stream is one free group of class C, and its cut is exact."""
    builder = Builder(seed=4)
    CONTRIBS["skip_norms"].build(builder)
    canonical = canonicalise(builder.model())
    analysis = analyse(canonical, residual=True)
    assert [(g.size, g.kind) for g in analysis.groups if g.pinned is None] == [(16, "C"), (24, "A")]
    assert_exact(canonical, analysis, seed=0)
