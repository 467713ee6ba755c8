"""What cannot be cut says so: control flow, data-dependent shapes, ambiguous heads, operators that nobody knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from prunec.api import explain
from prunec.graph import Analysis
from tests.graph.builder import Builder
from tests.graph.checks import assert_exact, free_sizes, prepare
from tests.graph.micros import C
from tests.graph.micros_sequence import HEADS, TOKENS, WIDTH, attend, heads

LOOP = """
<ir_version: 9, opset_import: ["" : 18]>
g (float[2, 6] x, float[6, 16] w, float[6, 16] u, float[16, 4] v) => (float[2, 4] y) <int64 count = {3}> {
    state = MatMul (x, w)
    outer = MatMul (x, u)
    last = Loop <body = body (int64 i, bool on, float[2, 16] s) => (bool still, float[2, 16] t) {
        still = Identity (on)
        t = Add (s, outer)
    }> (count, , state)
    h = Relu (last)
    y = MatMul (h, v)
}
"""

SCAN = """
<ir_version: 9, opset_import: ["" : 18]>
g (float[5, 2, 6] x, float[6, 16] w, float[16, 4] v, float[2, 16] first) => (float[5, 2, 4] y) {
    sequence = MatMul (x, w)
    state = Relu (first)
    last, all = Scan <num_scan_inputs = 1,
        body = body (float[2, 16] s, float[2, 16] e) => (float[2, 16] t, float[2, 16] o) {
            t = Add (s, e)
            o = Tanh (t)
    }> (state, sequence)
    y = MatMul (all, v)
}
"""

IF = """
<ir_version: 9, opset_import: ["" : 18]>
g (float[2, 6] x, bool on, float[6, 16] w, float[6, 12] u, float[16, 4] v, float[12, 16] q) => (float[2, 4] y) {
    h = MatMul (x, w)
    k = MatMul (x, u)
    free = Relu (k)
    other = MatMul (free, q)
    z = If (on) <then_branch = yes () => (float[2, 16] a) { a = Relu (h) },
                 else_branch = no () => (float[2, 16] b) { b = Add (h, other) }>
    y = MatMul (z, v)
}
"""


def with_weights(text: str) -> ir.Model:
    """The parsed model; all inputs but x and on become weights."""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for value in [v for v in proto.graph.input if v.name not in ("x", "on")]:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        array = rng.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
        proto.graph.input.remove(value)
    return ir.from_proto(proto)


def pins_of(analysis: Analysis, node: str) -> set[str]:
    return {f"{pin.code} {pin.reason}" for pin in analysis.pins if pin.node == node}


def the(model: ir.Model, op_type: str) -> str:
    return next(node.name or "" for node in model.graph if node.op_type == op_type)


def test_loop_pins_its_state_and_what_it_captures() -> None:
    canonical, analysis = prepare(with_weights(LOOP))
    assert free_sizes(analysis) == []
    said = pins_of(analysis, the(canonical, "Loop"))
    assert said == {
        "PC108 takes state as a state that its body carries around",
        "PC108 captures outer in its body (Add)",
    }


def test_scan_pins_its_state_and_its_sequence() -> None:
    canonical, analysis = prepare(with_weights(SCAN))
    assert free_sizes(analysis) == []
    assert "PC108 takes sequence as a sequence" in pins_of(analysis, the(canonical, "Scan"))


def test_if_pins_what_its_branches_capture_and_nothing_else() -> None:
    canonical, analysis = prepare(with_weights(IF))
    assert free_sizes(analysis) == [12]
    said = pins_of(analysis, the(canonical, "If"))
    assert said == {"PC108 captures h in its body (Relu)", "PC108 captures h in its body (Add)"} | {
        "PC108 captures other in its body (Add)"
    }
    assert_exact(canonical, analysis, seed=0)


def saved(builder: Builder, folder: Path) -> Path:
    path = folder / "model.onnx"
    ir.save(builder.model(), path)
    return path


def test_a_reshape_by_data(tmp_path: Path) -> None:
    """The shape is an input: nobody knows where the channels go."""
    b = Builder(seed=0)
    x = b.relu(b.conv(b.input("x", [1, 3, 8, 8]), C))
    y = b.op("Reshape", [x, b.input("shape", [2], dtype=7)])
    b.shapes[y] = [1, C * 64]
    b.output(b.op("ReduceSum", [y], keepdims=0))
    found = explain(saved(b, tmp_path), "conv3")
    assert [part.pinned.code for part in found.parts if part.pinned] == ["PC104"]
    assert "Reshape" in "".join(found.verdict) or "reshape" in "".join(found.verdict)


def test_heads_in_two_layouts(tmp_path: Path) -> None:
    """Four heads of six for the scores, six of four for the values: no cut leaves both, so all goes as one or stays."""
    b = Builder(seed=0)
    x = b.input("x", TOKENS)
    q, k = (heads(b, b.linear(x, HEADS * WIDTH)) for _ in range(2))
    v = heads(b, b.linear(x, HEADS * WIDTH), WIDTH)
    scores = b.op("Softmax", [b.op("MatMul", [q, b.op("Transpose", [k], perm=[0, 1, 3, 2])])], axis=-1)
    mean = b.op("ReduceMean", [scores, b.const(np.array([1]))], keepdims=1)
    mixed = b.op("Transpose", [b.op("MatMul", [mean, v])], perm=[0, 2, 1, 3])
    b.output(b.linear(b.reshape(mixed, [0, 0, -1]), 12))
    path = saved(b, tmp_path)
    canonical, analysis = prepare(ir.load(path))
    assert free_sizes(analysis) == [WIDTH], "the values by their own heads; the scores' heads are averaged"
    assert_exact(canonical, analysis, seed=0)
    averaged = next(g for g in analysis.groups if g.size == HEADS)
    assert averaged.pinned is not None and averaged.pinned.code == "PC105"
    said = " ".join(explain(path, averaged.producers()[0].node).verdict)
    assert averaged.pinned.node in said and "[PC105]" in said


def test_one_projection_in_two_layouts(tmp_path: Path) -> None:
    """The same channels as 4 × 6 and as 6 × 4: only whole groups of both agree, which is everything or nothing."""
    b = Builder(seed=0)
    shared = b.linear(b.input("x", TOKENS), HEADS * WIDTH)
    first = attend(b, *(heads(b, shared) for _ in range(3)))
    second = attend(b, *(heads(b, shared, WIDTH) for _ in range(3)))
    b.output(b.linear(b.op("Add", [first, second]), 12))
    canonical, analysis = prepare(ir.load(saved(b, tmp_path)))
    assert all(g.size in (1, 2) for g in analysis.groups if g.pinned is None)
    assert_exact(canonical, analysis, seed=0)


@pytest.mark.parametrize("domain", ["com.microsoft", "my.company"])
def test_an_operator_that_nobody_knows(domain: str, tmp_path: Path) -> None:
    b = Builder(seed=0)
    x = b.relu(b.conv(b.input("x", [1, 3, 8, 8]), C))
    y = b.relu(b.conv(x, 12))
    b.output(b.conv(y, 8))
    b.nodes.append(onnx.helper.make_node("Mystery", [x], ["strange"], name="strange_node", domain=domain))
    model = b.unchecked()
    model.opset_import.append(onnx.helper.make_opsetid(domain, 1))
    model.graph.output.append(onnx.helper.make_tensor_value_info("strange", onnx.TensorProto.FLOAT, [1]))
    onnx.save(model, tmp_path / "model.onnx")
    found = explain(tmp_path / "model.onnx", "conv3")
    assert found.parts[0].pinned is not None
    assert (found.parts[0].pinned.code, found.parts[0].pinned.node) == ("PC101", "strange_node")
    assert f"strange_node {domain}.Mystery has no channel rule [PC101]" in found.verdict[0]
    free = explain(tmp_path / "model.onnx", "conv7")
    made = next(part for part in free.parts if part.does == "makes")
    assert made.pinned is None and made.size == 12
    assert any("They can be cut" in sentence for sentence in free.verdict)
