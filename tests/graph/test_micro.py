"""The micro graphs that other tools get wrong: first the groups, then the numbers (C = 16, half cut)."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from prunec.graph.cost import parameter_count
from prunec.passes.mask_channels import mask_channels
from prunec.passes.slice_channels import slice_channels
from tests.graph.builder import Builder
from tests.graph.checks import (
    assert_exact,
    free_sizes,
    prepare,
    random_alive,
    random_feeds,
    relative_error,
    run_float64,
)
from tests.graph.micros import C
from tests.graph.micros_contrib import CONTRIBS
from tests.graph.micros_experts import EXPERT_MICROS
from tests.graph.micros_image import IMAGES
from tests.graph.micros_quantised import QUANTISED
from tests.graph.micros_sequence import SEQUENCES

MICROS = IMAGES | SEQUENCES | CONTRIBS | QUANTISED | EXPERT_MICROS


def build(name: str) -> ir.Model:
    builder = Builder(seed=sorted(MICROS).index(name), opset=MICROS[name].opset)
    MICROS[name].build(builder)
    return builder.model()


@pytest.mark.parametrize("name", MICROS)
def test_groups(name: str) -> None:
    _, analysis = prepare(build(name))
    pinned = {g.pinned.code for g in analysis.groups if g.pinned is not None}
    assert free_sizes(analysis) == MICROS[name].free
    assert pinned == (MICROS[name].pinned if pinned else set())
    assert all(g.pinned.node and g.pinned.reason for g in analysis.groups if g.pinned is not None)


@pytest.mark.parametrize("name", [n for n in MICROS if MICROS[n].free])
def test_numbers(name: str) -> None:
    canonical, analysis = prepare(build(name))
    cut = assert_exact(canonical, analysis, seed=sorted(MICROS).index(name))
    assert parameter_count(cut) < parameter_count(canonical)


# ONNX's reference implementation cannot run a grouped ConvTranspose and knows nothing of ONNX Runtime's own operators;
# float32 above covers them.
NO_REFERENCE = {"conv_transpose_grouped", "quantised_attention", "experts_fused", "experts_fused_gated", *CONTRIBS}


@pytest.mark.parametrize("name", [n for n in MICROS if MICROS[n].free and n not in NO_REFERENCE])
def test_numbers_in_float64(name: str) -> None:
    canonical, analysis = prepare(build(name))
    rng = np.random.default_rng(sorted(MICROS).index(name))
    alive = random_alive(analysis, 0.5, rng)
    feeds = random_feeds(canonical, rng)
    masked = run_float64(mask_channels(canonical, analysis, alive), feeds)
    assert relative_error(masked, run_float64(slice_channels(canonical, analysis, alive), feeds)) <= 1e-12


def test_tied_weights_stay_one_tensor() -> None:
    canonical, analysis = prepare(build("tied_linear"))
    cut = assert_exact(canonical, analysis, seed=1)
    shared = [v for v in cut.graph.initializers.values() if v.shape is not None and list(v.shape) == [32, 32]]
    assert len(shared) == 1
    assert len(list(shared[0].uses())) == 2


def test_a_head_stays_tied_to_its_embedding() -> None:
    canonical, analysis = prepare(build("tied_embedding"))
    assert parameter_count(canonical) == parameter_count(build("tied_embedding"))
    cut = assert_exact(canonical, analysis, seed=2)
    table = next(v for v in cut.graph.initializers.values() if v.shape is not None and list(v.shape) == [100, C // 2])
    assert len(list(table.uses())) == 2


def test_shared_bias_is_copied_when_its_users_part() -> None:
    canonical, analysis = prepare(build("equal_constants"))
    first, second = (g for g in analysis.groups if g.pinned is None)
    alive = analysis.alive({first.id: np.arange(C) < 4, second.id: np.arange(C) >= 2})
    cut = slice_channels(canonical, analysis, alive)
    biases = sorted(
        int(v.shape[0]) for v in cut.graph.initializers.values() if v.shape is not None and len(v.shape) == 1
    )  # type: ignore[arg-type]
    assert biases == [4, 8, 14]
    before = next(v for v in canonical.graph.initializers.values() if v.name == "bias")
    assert before.shape is not None and before.shape[0] == C, "the input model must stay as it was"
