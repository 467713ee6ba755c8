"""Small recurrent models in every form the operators have, for the tests of their compensation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.graph.builder import Builder

TIME, BATCH, HIDDEN, INPUTS = 9, 8, 8, 6
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def layer(
    b: Builder,
    x: str,
    op: str,
    direction: str = "forward",
    *,
    bias: bool = True,
    first: bool = False,
    lengths: bool = False,
    peepholes: bool = False,
    **attributes: Any,
) -> list[str]:
    """One recurrent node over [TIME, BATCH, n]: Y, Y_h and for an LSTM Y_c."""
    d, g = (2 if direction == "bidirectional" else 1), GATES[op]
    inputs = [x, b.weight(d, g * HIDDEN, b.shapes[x][2]), b.weight(d, g * HIDDEN, HIDDEN)]
    inputs += [b.weight(d, 2 * g * HIDDEN) if bias else ""]
    inputs += [b.const(np.arange(BATCH, dtype=np.int32) % TIME + 1) if lengths else ""]
    inputs += [b.weight(d, BATCH, HIDDEN) if first else ""]
    if op == "LSTM":
        inputs += [b.weight(d, BATCH, HIDDEN) if first else "", b.weight(d, 3 * HIDDEN) if peepholes else ""]
    while not inputs[-1]:
        inputs.pop()
    outputs = 3 if op == "LSTM" else 2
    return list(b.op(op, inputs, outputs=outputs, hidden_size=HIDDEN, direction=direction, **attributes))


def flat(b: Builder, y: str) -> str:
    """[TIME, D, BATCH, HIDDEN] → [TIME, BATCH, D·HIDDEN]"""
    return b.reshape(str(b.op("Transpose", [y], perm=[0, 2, 1, 3])), [TIME, BATCH, -1])


CELLS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "lstm": ("LSTM", "forward", {}),
    "lstm, both ways": ("LSTM", "bidirectional", {"first": True}),
    "lstm, backwards, lengths": ("LSTM", "reverse", {"lengths": True}),
    "lstm, both ways, lengths, peepholes": (
        "LSTM",
        "bidirectional",
        {"first": True, "lengths": True, "peepholes": True},
    ),
    "lstm, no bias, clip": ("LSTM", "forward", {"bias": False, "clip": 0.5}),
    "gru": ("GRU", "forward", {}),
    "gru, both ways, lengths, clip": ("GRU", "bidirectional", {"first": True, "lengths": True, "clip": 0.5}),
    "gru, reset after": ("GRU", "forward", {"linear_before_reset": 1}),
    "gru, reset after, both ways": ("GRU", "bidirectional", {"linear_before_reset": 1, "first": True}),
    "rnn": ("RNN", "bidirectional", {"first": True, "lengths": True}),
    "rnn, no bias": ("RNN", "reverse", {"bias": False}),
}


def net(name: str) -> Callable[[Builder], str]:
    """The cell between a projection and a read-out of every step."""

    def build(b: Builder) -> str:
        op, direction, options = CELLS[name]
        x = b.linear(b.input("x", [TIME, BATCH, 4]), INPUTS)
        return b.linear(flat(b, layer(b, x, op, direction, **options)[0]), 5)

    return build


def stacked(b: Builder) -> str:
    """Two layers; only the last state of the second is read."""
    y = flat(b, layer(b, b.input("x", [TIME, BATCH, 4]), "LSTM", "bidirectional")[0])
    return b.linear(layer(b, y, "GRU")[1], 5)
