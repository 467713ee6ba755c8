"""LSTM, GRU and RNN against ONNX Runtime, and against float64 where ONNX Runtime refuses the layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto

pytest.importorskip("tvm", reason="needs the [tvm] extra")

from prunec.backends.cpu.isa import AVX512
from prunec.backends.cpu.kernels.recurrent import Recurrent
from prunec.backends.cpu.lower.lowering import lower
from prunec.backends.cpu.lower.prepare import prepare
from tests.backends.kernel_support import needs_x86, worst
from tests.backends.program_support import assert_equal, compiled, lowered
from tests.graph.builder import Builder

pytestmark = needs_x86
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def layer(
    b: Builder, op: str, x: str, hidden: int, *, direction: str = "forward", zeros: float = 0.0, bias: bool = True,
    lengths: list[int] | None = None, starts: bool = False, outputs: int | None = None, **attributes: Any,
) -> list[str]:  # fmt: skip
    """One layer with every output; `zeros`: share of 16×1 blocks of R that are zero."""
    directions, gates = (2 if direction == "bidirectional" else 1), GATES[op]
    is_batch_first = attributes.get("layout", 0) == 1
    rows, inputs = b.shapes[x][0 if is_batch_first else 1], b.shapes[x][2]
    w = (b.rng.standard_normal((directions, gates * hidden, inputs)) / np.sqrt(inputs)).astype(np.float32)
    r = (b.rng.standard_normal((directions, gates * hidden, hidden)) / np.sqrt(hidden)).astype(np.float32)
    keep = b.rng.random((directions, -(-gates * hidden // 16), hidden)) >= zeros
    r *= np.repeat(keep, 16, axis=1)[:, : gates * hidden]
    given = [x, b.const(w), b.const(r)]
    given.append(b.weight(directions, 2 * gates * hidden) if bias else "")
    given.append(b.const(np.array(lengths, np.int32)) if lengths else "")
    if starts:
        shape = [rows, directions, hidden] if is_batch_first else [directions, rows, hidden]
        given += [b.weight(*shape) for _ in range(2 if op == "LSTM" else 1)]
    while not given[-1]:
        given.pop()
    count = outputs or (3 if op == "LSTM" else 2)
    found = b.op(op, given, count, direction=direction, hidden_size=hidden, **attributes)
    return [found] if count == 1 else list(found)


DIRECTIONS = ["bidirectional", *(pytest.param(one, marks=pytest.mark.slow) for one in ("forward", "reverse"))]


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_recurrent_layers_equal_onnx_runtime(op: str, direction: str, tmp_path: Path) -> None:
    """Awkward widths and batches, starts, lengths, zeros."""
    b = Builder(0, 14)
    x = b.input("x", [7, 5, 9])
    single = b.input("single", [11, 1, 20])
    b.output(*layer(b, op, x, 17, direction=direction))
    b.output(*layer(b, op, single, 32, direction=direction, zeros=0.6, starts=True))
    b.output(*layer(b, op, x, 3, direction=direction, lengths=[7, 2, 2, 1, 7], starts=True))
    b.output(*layer(b, op, x, 16, direction=direction, bias=False, lengths=[7] * 5))
    assert_layers_equal(b, tmp_path)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_forms_of_recurrent_layers_equal_onnx_runtime(op: str, tmp_path: Path) -> None:
    """Activations, the reset gate before and after the product, a layer on another one, a start that is computed."""
    b = Builder(0, 14)
    x = b.input("x", [7, 5, 9])
    if op == "GRU":
        b.output(*layer(b, op, x, 24, direction="bidirectional", linear_before_reset=1, starts=True))
        b.output(*layer(b, op, b.input("single", [11, 1, 20]), 19, linear_before_reset=1, zeros=0.5))
    if op == "RNN":
        b.output(*layer(b, op, x, 8, activations=["Relu"]))
    first = layer(b, op, x, 20, direction="bidirectional")[0]
    joined = b.op("Reshape", [b.op("Transpose", [first], perm=[0, 2, 1, 3]), b.const(np.array([7, 5, 40]))])
    b.output(b.op("Squeeze", [layer(b, op, joined, 6, outputs=1)[0], b.const(np.array([1]))]))
    state = b.input("state", [1, 5, 6])
    weights = [b.weight(1, GATES[op] * 6, 9), b.weight(1, GATES[op] * 6, 6)]
    b.output(b.op(op, [x, *weights, "", "", b.op("Tanh", [state])], hidden_size=6))
    assert_layers_equal(b, tmp_path)


def assert_layers_equal(b: Builder, folder: Path) -> None:
    model = b.model()
    rng = np.random.default_rng(1)
    with compiled(model, folder, threads=2) as package:
        for _ in range(2):
            feeds = {i.name: rng.standard_normal(b.shapes[i.name]).astype(np.float32) for i in b.inputs}
            assert_equal(model, package, feeds)


def test_zero_blocks_of_the_recurrent_weights_are_left_out() -> None:
    b = Builder(0, 14)
    b.output(layer(b, "LSTM", b.input("x", [3, 1, 8]), 64, zeros=0.75)[0])
    (step,) = [s for s in lowered(b.model()).steps if isinstance(s.call, Recurrent)]
    assert step.buffers[1].elements < 0.4 * step.call.arguments()[1].size


def lstm64(x: np.ndarray, w: np.ndarray, r: np.ndarray, b: np.ndarray, h: np.ndarray, c: np.ndarray) -> Any:
    """One direction over x [steps, rows, inputs] in float64: all hidden states, the last one, the last cell."""
    found = []
    for row in x.astype(np.float64):
        z = row @ w.T.astype(np.float64) + h @ r.T.astype(np.float64) + b[: len(w)] + b[len(w) :]
        i, o, f, g = np.split(z, 4, axis=1)
        i, o, f = (1 / (1 + np.exp(-v)) for v in (i, o, f))
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(c)
        found.append(h)
    return np.stack(found), h, c


def test_batch_first_layout_in_float64(tmp_path: Path) -> None:
    """Layout 1, which ONNX Runtime does not run."""
    b = Builder(3, 14)
    x = b.input("x", [3, 6, 5])
    names = layer(b, "LSTM", x, 10, direction="bidirectional", starts=True, layout=1)
    b.shapes.update({names[0]: [3, 6, 2, 10], names[1]: [3, 2, 10], names[2]: [3, 2, 10]})
    b.output(*names)
    model = ir.from_proto(b.unchecked())
    given = np.random.default_rng(0).standard_normal((3, 6, 5)).astype(np.float32)
    with compiled(model, tmp_path) as package:
        found = package.run({"x": given})
    weights = {value.name: value.const_value.numpy() for value in model.graph.initializers.values()}  # type: ignore[union-attr]
    w, r, bias, h0, c0 = (weights[name] for name in b.nodes[0].input[1:] if name)
    forward = lstm64(given.transpose(1, 0, 2), w[0], r[0], bias[0], h0[:, 0], c0[:, 0])
    backward = lstm64(given.transpose(1, 0, 2)[::-1], w[1], r[1], bias[1], h0[:, 1], c0[:, 1])
    wanted = np.stack([forward[0], backward[0][::-1]], axis=2).transpose(1, 0, 2, 3)
    assert worst(found[names[0]], wanted) <= 1e-6
    for place in (1, 2):
        assert worst(found[names[place]], np.stack([forward[place], backward[place]], axis=1)) <= 1e-6


def _peephole(b: Builder, x: str) -> None:
    inputs = [x, b.weight(1, 16, 3), b.weight(1, 16, 4), "", "", "", "", b.weight(1, 12)]
    b.output(b.op("LSTM", inputs, hidden_size=4))


REFUSED: dict[str, Callable[[Builder, str], None]] = {
    "peepholes": _peephole,
    "clip": lambda b, x: b.output(layer(b, "LSTM", x, 4, clip=1.0)[0]),
    "Softsign": lambda b, x: b.output(layer(b, "RNN", x, 4, activations=["Softsign"])[0]),
    "weights are computed": lambda b, x: b.output(
        b.op("RNN", [x, b.op("Exp", [b.input("w", [1, 4, 3])]), b.weight(1, 4, 4)], hidden_size=4)
    ),
    "lengths that are computed": lambda b, x: b.output(
        b.op("RNN", [x, b.weight(1, 4, 3), b.weight(1, 4, 4), "", b.input("n", [2], TensorProto.INT32)], hidden_size=4)
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_refused(reason: str) -> None:
    b = Builder(0, 14)
    REFUSED[reason](b, b.input("x", [5, 2, 3]))
    ready = prepare(b.model())
    _, refusals = lower(list(ready.graph), list(ready.graph.inputs), list(ready.graph.outputs), AVX512)
    assert [reason in r.reason for r in refusals] == [True]
