"""Models that ONNX Runtime's transformer optimizer has been through: read, grouped, cut and proved as any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from prunec.frontend.onnx import load
from prunec.graph import analyse
from prunec.graph.cost import model_macs
from prunec.passes.canonicalise import canonicalise
from prunec.passes.slice_channels import slice_channels
from prunec.verify.exactness import check_exactness
from tests.graph.builder import Builder
from tests.graph.checks import free_sizes, random_alive
from tests.graph.micros_contrib import CONTRIBS
from tests.graph.micros_sequence import HEADS, WIDTH, attend, heads


def simplified(b: Builder) -> None:
    """SimplifiedLayerNormalization is in no version of ONNX, but in the standard domain."""
    x = b.linear(b.input("x", [2, 5, 12]), 24)
    x = b.op("Add", [x, b.linear(b.relu(b.linear(x, 32)), 24)])
    b.output(b.linear(x, 4))


def test_simplified_layer_normalization(tmp_path: Path) -> None:
    b = Builder(seed=0)
    simplified(b)
    proto = b.unchecked()
    last = next(n for n in reversed(proto.graph.node) if n.op_type == "MatMul")
    norm = onnx.helper.make_node(
        "SimplifiedLayerNormalization", [last.input[0], b.weight(24)], ["normed"], name="norm", axis=-1, epsilon=1e-5
    )
    last.input[0] = "normed"
    place = list(proto.graph.node).index(last)
    nodes = [*proto.graph.node]
    nodes.insert(place, norm)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.append(b.initializers[-1])
    onnx.save(proto, tmp_path / "model.onnx")
    source = load(tmp_path / "model.onnx")
    assert source.warnings == []
    canonical = canonicalise(source.model)
    analysis = analyse(canonical)
    assert free_sizes(analysis) == [32]
    stream = next(g for g in analysis.groups if g.size == 24)
    assert stream.pinned is not None and (stream.pinned.code, stream.pinned.node) == ("PC105", "norm")
    assert check_exactness(canonical, analysis, random_alive(analysis, 0.5, np.random.default_rng(0)), seed=0).passed


def block(b: Builder, x: str) -> str:
    q, k, v = (heads(b, b.linear(x, HEADS * WIDTH)) for _ in range(3))
    x = b.op("Add", [b.linear(attend(b, q, k, v), HEADS * WIDTH), x])
    x = b.op("LayerNormalization", [x, b.weight(HEADS * WIDTH), b.weight(HEADS * WIDTH)])
    h = b.linear(x, 48)
    root, half, one = (b.const(np.float32(v)) for v in (1.4142135381698608, 0.5, 1.0))
    gate = b.op("Add", [b.op("Erf", [b.op("Div", [h, root])]), one])
    h = b.op("Mul", [b.op("Mul", [h, gate]), half])
    x = b.op("Add", [b.linear(h, HEADS * WIDTH), x])
    return str(b.op("LayerNormalization", [x, b.weight(HEADS * WIDTH), b.weight(HEADS * WIDTH)]))


def test_optimizer_output(tmp_path: Path) -> None:
    """Two encoder blocks: the optimizer fuses skip norms and biased Gelus; heads and hidden layers stay free."""
    from onnxruntime.transformers import optimizer

    b = Builder(seed=0)
    x = b.linear(b.input("x", [2, 5, 12]), HEADS * WIDTH)
    b.output(b.linear(block(b, block(b, x)), 4))
    ir.save(b.model(), tmp_path / "model.onnx")
    fused = optimizer.optimize_model(str(tmp_path / "model.onnx"), "bert", num_heads=HEADS, hidden_size=24, opt_level=0)
    fused.save_model_to_file(str(tmp_path / "fused.onnx"))
    source = load(tmp_path / "fused.onnx")
    operators = {node.op_type for node in source.model.graph if node.domain == "com.microsoft"}
    assert {"SkipLayerNormalization", "BiasGelu"} <= operators
    assert source.warnings == [], "operators with a rule are not custom"
    canonical = canonicalise(source.model)
    analysis = analyse(canonical)
    assert sorted(free_sizes(analysis)) == [HEADS, HEADS, 48, 48]
    alive = random_alive(analysis, 0.5, np.random.default_rng(0))
    assert check_exactness(canonical, analysis, alive, seed=0).passed
    assert model_macs(slice_channels(canonical, analysis, alive)) < 0.6 * model_macs(canonical)


@pytest.mark.parametrize("name", ["packed_attention", "packed_attention_sizes"])
def test_head_counts_are_rewritten(name: str) -> None:
    b = Builder(seed=0)
    CONTRIBS[name].build(b)
    canonical = canonicalise(b.model())
    analysis = analyse(canonical)
    group = next(g for g in analysis.groups if g.size == HEADS)
    cut = slice_channels(canonical, analysis, analysis.alive({group.id: np.array([True, False, False, True])}))
    node = next(n for n in cut.graph if n.op_type == "Attention")
    assert node.attributes["num_heads"].as_int() == 2
    if name == "packed_attention_sizes":
        assert list(node.attributes["qkv_hidden_sizes"].as_ints()) == [12, 12, 4]
    weight, bias = node.inputs[1], node.inputs[2]
    assert weight is not None and bias is not None and weight.shape is not None
    assert bias.shape == weight.shape[1:]
    assert model_macs(cut) < model_macs(canonical)
