"""Damaged files: `load` (and what follows it) succeeds or says why, and never fails in another way."""

from __future__ import annotations

import random
from pathlib import Path

import onnx
import pytest

from prunec.diagnostics import PrunecError
from prunec.frontend.onnx import load
from prunec.passes.canonicalise import canonicalise
from tests.frontend.models import conv_model, save_external, text_model

ATTENTION = """g (float[b,s,8] x) => (float[b,s,8] y)
<int64 i0 = {0}, int64 i1 = {1}, int64[1] a0 = {0}, int64[1] h = {2}, int64[1] d = {4}, int64[1] hd = {8}> {
    sh = Shape (x)  n0 = Gather (sh, i0)  n1 = Unsqueeze (n0, a0)  m0 = Gather (sh, i1)  m1 = Unsqueeze (m0, a0)
    t = Concat <axis = 0> (n1, m1, h, d)  r = Reshape (x, t)  p = Transpose <perm = [0, 2, 1, 3]> (r)
    k = Transpose <perm = [0, 1, 3, 2]> (p)  a = MatMul (p, k)  f = Softmax (a)  v = MatMul (f, p)
    q = Transpose <perm = [0, 2, 1, 3]> (v)  u = Concat <axis = 0> (n1, m1, hd)  y = Reshape (q, u)
}"""


def survives(path: Path) -> bool:
    """Whether the file is accepted; anything but an answer or a PrunecError fails the test."""
    try:
        canonicalise(load(path).model)
    except PrunecError as error:
        refusal = error.diagnostic
    else:
        return True
    assert refusal.code.startswith("PC0")
    assert refusal.hint
    return False


@pytest.mark.parametrize("text", [None, ATTENTION])
def test_truncated_files_are_refused(tmp_path: Path, text: str | None) -> None:
    data = (conv_model() if text is None else text_model(text)).SerializeToString()
    path = tmp_path / "m.onnx"
    for length in [0, 1, 2, 3, 10, *range(20, len(data), max(len(data) // 40, 1)), len(data) - 1]:
        path.write_bytes(data[:length])
        assert not survives(path), length
    path.write_bytes(data)
    assert survives(path)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("text", [None, ATTENTION])
def test_flipped_bits_are_survived(tmp_path: Path, text: str | None, seed: int) -> None:
    data = (conv_model() if text is None else text_model(text)).SerializeToString()
    rng = random.Random(seed)
    path = tmp_path / "m.onnx"
    for _ in range(40):
        damaged = bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 8])):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        survives(path)


@pytest.mark.parametrize("seed", range(3))
def test_random_bytes_and_cut_pieces_are_survived(tmp_path: Path, seed: int) -> None:
    data = text_model(ATTENTION).SerializeToString()
    rng = random.Random(seed)
    path = tmp_path / "m.onnx"
    for _ in range(30):
        start = rng.randrange(len(data))
        piece = data[:start] + data[start + rng.randrange(1, 20) :]
        path.write_bytes(rng.choice([rng.randbytes(200), piece, data + rng.randbytes(9)]))
        survives(path)


def test_truncated_external_data_is_refused(tmp_path: Path) -> None:
    path = save_external(tmp_path / "m.onnx")
    data = (tmp_path / "weights.bin").read_bytes()
    for length in (0, 1, len(data) // 2, len(data) - 1):
        (tmp_path / "weights.bin").write_bytes(data[:length])
        assert not survives(path)


@pytest.mark.parametrize("depth", [5, 60, 300])
def test_deeply_nested_graphs_are_survived(tmp_path: Path, depth: int) -> None:
    leaf = text_model("g (float[2] x) => (float[2] y) { y = Relu (x) }")
    graph = leaf.graph
    for level in range(depth):
        outer = onnx.GraphProto(name=f"g{level}")
        node = outer.node.add(op_type="If", input=["x"], output=["y"])
        for name, branch in (("then_branch", graph), ("else_branch", leaf.graph)):
            node.attribute.add(name=name, type=onnx.AttributeProto.GRAPH).g.CopyFrom(branch)
        graph = outer
    leaf.graph.node[0].CopyFrom(graph.node[0])
    path = tmp_path / "m.onnx"
    path.write_bytes(leaf.SerializeToString())
    survives(path)
