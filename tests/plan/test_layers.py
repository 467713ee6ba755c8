from __future__ import annotations

import onnx_ir as ir
import pytest

from prunec.diagnostics import PrunecError
from prunec.patterns import parse
from prunec.plan.layers import choose_layers
from tests.graph.builder import Builder
from tests.graph.checks import prepare


def network() -> ir.Model:
    """Stem, depthwise, pointwise, one of 6 input channels, head."""
    b = Builder()
    y = b.relu(b.conv(b.input("x", [1, 3, 8, 8]), 16))
    y = b.relu(b.conv(y, 16, group=16))
    y = b.relu(b.conv(y, 6, 1))
    y = b.relu(b.conv(y, 16, 1))
    y = b.reshape(y, [1, -1])
    b.output(b.gemm(y, 10))
    return prepare(b.model())[0]


def reasons(model: ir.Model, name: str, **options: list[str]) -> list[str]:
    return [
        plan.pattern if plan.pattern != "dense" else plan.why
        for plan in choose_layers(model, parse(name), 0.5, **options)
    ]


def test_a_later_layer_that_a_cut_left_narrow_is_no_stem() -> None:
    b = Builder()
    b.output(b.conv(b.conv(b.conv(b.input("x", [1, 3, 8, 8]), 4), 8), 8))
    assert reasons(prepare(b.model())[0], "2:4") == ["stem: 3 input channels", "2:4", "head: no layer comes after it"]


def test_what_no_kernel_gains_from_stays_dense_with_its_reason() -> None:
    assert reasons(network(), "2:4") == [
        "stem: 3 input channels",
        "depthwise: one input channel an output",
        "2:4",
        "2:4 needs input channels in multiples of 4, there are 6",
        "head: no layer comes after it",
    ]


def test_include_overrides_the_defaults_but_not_the_pattern() -> None:
    model = network()
    names = [plan.node for plan in choose_layers(model, parse("2:4"), 0.5)]
    found = reasons(model, "2:4", include=[names[0], names[-1]])
    assert "multiples of 4, there are 3" in found[0] and found[-1] == "2:4"
    assert found[1:-1] == ["not named by --include"] * 3
    assert reasons(model, "unstructured", include=["*"]) == ["unstructured"] * 5


def test_exclude_keeps_a_layer_by_node_or_weight_name() -> None:
    model = network()
    third = choose_layers(model, parse("2:4"), 0.5)[2]
    for name in (third.node, third.tensor):
        assert reasons(model, "2:4", exclude=[name])[2] == "--exclude"


def test_a_name_that_is_no_layer_is_refused() -> None:
    with pytest.raises(PrunecError, match="PC206"):
        reasons(network(), "2:4", exclude=["nothing"])


def test_a_layer_before_a_norm_is_no_head() -> None:
    b = Builder()
    x = b.input("x", [1, 4, 8])
    y = b.op("Add", [b.linear(b.relu(b.linear(x, 16)), 8), x])
    b.output(b.op("LayerNormalization", [y, b.weight(8)]))
    assert reasons(prepare(b.model())[0], "2:4") == ["2:4", "2:4"]
