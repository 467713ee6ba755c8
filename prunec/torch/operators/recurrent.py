"""LSTM, GRU and RNN, forward, backward and both ways.

W [D, G·H, I], R [D, G·H, H], B [D, 2·G·H], states [D, N, H]; Y [L, D, N, H]. Gate orders: ONNX i o f c (LSTM) and
z r h (GRU), torch i f g o and r z n. What torch's own kernels compute goes through them with rows in its order;
peepholes, clipping, other activations and sequence lengths are written out step by step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
import torch

from prunec.graph.rules.base import attribute
from prunec.torch.operators.steps import ACTIVATIONS, DEFAULTS, Cell, run_steps

_ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}


def lstm(
    x: Any,
    w: Any,
    r: Any,
    b: Any = None,
    lengths: Any = None,
    h0: Any = None,
    c0: Any = None,
    p: Any = None,
    **options: Any,
) -> Any:
    """Y, Y_h, Y_c."""
    return _recurrent("LSTM", x, w, r, b, lengths, h0, c0, p, **options)


def gru(x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h0: Any = None, **options: Any) -> Any:
    """Y, Y_h."""
    return _recurrent("GRU", x, w, r, b, lengths, h0, None, None, **options)


def rnn(x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h0: Any = None, **options: Any) -> Any:
    """Y, Y_h."""
    return _recurrent("RNN", x, w, r, b, lengths, h0, None, None, **options)


def _recurrent(
    kind: str,
    x: Any,
    w: Any,
    r: Any,
    b: Any,
    lengths: Any,
    h0: Any,
    c0: Any,
    p: Any,
    *,
    hidden_size: int,
    direction: str = "forward",
    layout: int = 0,
    clip: float | None = None,
    activations: Sequence[str] | None = None,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    input_forget: int = 0,
    linear_before_reset: int = 0,
    output_sequence: int = 0,
) -> Any:
    directions = w.shape[0]
    if layout:
        x = x.transpose(0, 1)
        h0, c0 = (None if s is None else s.transpose(0, 1) for s in (h0, c0))
    zero = x.new_zeros(directions, x.shape[1], hidden_size)
    h0, c0 = (zero if s is None else s for s in (h0, c0))
    b = w.new_zeros(directions, 2 * w.shape[1]) if b is None else b
    default = DEFAULTS[kind] * directions
    names = [name.lower() for name in activations] if activations else default
    whole = lengths is None or bool((lengths == x.shape[0]).all())
    simple = whole and p is None and clip is None and not input_forget and not activation_alpha and not activation_beta
    if simple and names == default and (kind != "GRU" or linear_before_reset):
        found = [_kernel(kind, x, w[d], r[d], b[d], h0[d], c0[d], _is_reverse(direction, d)) for d in range(directions)]
    else:
        count = len(DEFAULTS[kind])
        cells = [
            Cell(kind, w[d], r[d], b[d], None if p is None else p[d], names[d * count : (d + 1) * count], clip,
                 bool(input_forget), bool(linear_before_reset))
            for d in range(directions)
        ]  # fmt: skip
        found = [run_steps(cell, x, h0[d], c0[d], lengths, _is_reverse(direction, d)) for d, cell in enumerate(cells)]
    y, h, c = (torch.stack(parts) for parts in zip(*found, strict=True))
    y = y.transpose(0, 1)
    if layout:
        y, h, c = y.permute(2, 0, 1, 3), h.transpose(0, 1), c.transpose(0, 1)
    return (y, h, c) if kind == "LSTM" else (y, h)


def _is_reverse(direction: str, number: int) -> bool:
    return direction == "reverse" or number == 1


def _kernel(kind: str, x: Any, w: Any, r: Any, b: Any, h: Any, c: Any, reverse: bool) -> tuple[Any, Any, Any]:
    """One direction in torch's own kernel: y [L, N, H], h [N, H], c [N, H]."""
    half = b.shape[0] // 2
    weights = [_reorder(kind, part) for part in (w, r, b[:half], b[half:])]
    x = torch.flip(x, (0,)) if reverse else x
    h, c = h.unsqueeze(0).contiguous(), c.unsqueeze(0).contiguous()
    rest = (weights, True, 1, 0.0, False, False, False)
    if kind == "LSTM":
        y, h, c = torch.lstm(x, (h, c), *rest)
    else:
        y, h = (torch.gru if kind == "GRU" else torch.rnn_tanh)(x, h, *rest)
    return torch.flip(y, (0,)) if reverse else y, h[0], c[0]


def _reorder(kind: str, rows: Any) -> Any:
    """Rows of all gates in torch's order."""
    order = _ORDER[kind]
    blocks = rows.reshape(len(order), -1, *rows.shape[1:])
    return torch.cat([blocks[i] for i in order])


def _refusal(node: ir.Node) -> str | None:
    for name in attribute(node, "activations", None) or ():
        if name.lower() not in ACTIVATIONS:
            return f"activation {name}"
    if attribute(node, "activation_alpha", None) or attribute(node, "activation_beta", None):
        return "parameters of its activations"
    return None


OPERATORS = {"GRU": gru, "LSTM": lstm, "RNN": rnn}
REFUSALS = dict.fromkeys(OPERATORS, _refusal)
