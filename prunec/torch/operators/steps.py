"""Recurrent layers step by step: the ONNX equations with all their options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softsign": functional.softsign,
    "softplus": functional.softplus,
}
DEFAULTS = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}


@dataclass(frozen=True)
class Cell:
    """One direction: w [G·H, I], r [G·H, H], b [2·G·H], peepholes [3·H] in the order i o f."""

    kind: str
    w: Any
    r: Any
    b: Any
    peepholes: Any
    activations: Sequence[str]
    clip: float | None
    input_forget: bool
    linear_before_reset: bool

    def step(self, x: Any, h: Any, c: Any) -> tuple[Any, Any]:
        """x [N, I], h and c [N, H] → the next h and c."""
        return {"LSTM": self._lstm, "GRU": self._gru, "RNN": self._rnn}[self.kind](x, h, c)

    def _act(self, number: int, x: Any) -> Any:
        clipped = x if self.clip is None else torch.clamp(x, -self.clip, self.clip)
        return ACTIVATIONS[self.activations[number]](clipped)

    def _parts(self, gates: int) -> tuple[list[Any], list[Any], list[Any]]:
        """Biases of the inputs and of the recurrence, and the recurrence, per gate."""
        wb, rb = self.b.chunk(2)
        return list(wb.chunk(gates)), list(rb.chunk(gates)), list(self.r.chunk(gates))

    def _lstm(self, x: Any, h: Any, c: Any) -> tuple[Any, Any]:
        wb, rb = self.b.chunk(2)
        i, o, f, g = (x @ self.w.t() + h @ self.r.t() + wb + rb).chunk(4, 1)
        if self.peepholes is not None:
            pi, po, pf = self.peepholes.chunk(3)
            i, f = i + pi * c, f + pf * c
        i = self._act(0, i)
        f = 1 - i if self.input_forget else self._act(0, f)
        c = f * c + i * self._act(1, g)
        if self.peepholes is not None:
            o = o + po * c
        return self._act(0, o) * ACTIVATIONS[self.activations[2]](c), c  # ONNX Runtime does not clip the cell state

    def _gru(self, x: Any, h: Any, c: Any) -> tuple[Any, Any]:
        wb, rb, r = self._parts(3)
        wz, wr, wh = (x @ self.w.t()).chunk(3, 1)
        z = self._act(0, wz + h @ r[0].t() + wb[0] + rb[0])
        reset = self._act(0, wr + h @ r[1].t() + wb[1] + rb[1])
        if self.linear_before_reset:
            new = self._act(1, wh + reset * (h @ r[2].t() + rb[2]) + wb[2])
        else:
            new = self._act(1, wh + (reset * h) @ r[2].t() + rb[2] + wb[2])
        return (1 - z) * new + z * h, c

    def _rnn(self, x: Any, h: Any, c: Any) -> tuple[Any, Any]:
        wb, rb = self.b.chunk(2)
        return self._act(0, x @ self.w.t() + h @ self.r.t() + wb + rb), c


def run_steps(cell: Cell, x: Any, h: Any, c: Any, lengths: Any, reverse: bool) -> tuple[Any, Any, Any]:
    """x [L, N, I] → y [L, N, H] (zero behind a sequence's end), and the last h and c of each sequence."""
    steps: list[Any] = [None] * x.shape[0]
    for t in reversed(range(x.shape[0])) if reverse else range(x.shape[0]):
        next_h, next_c = cell.step(x[t], h, c)
        if lengths is None:
            h, c, steps[t] = next_h, next_c, next_h
            continue
        inside = (t < lengths)[:, None]
        h, c = torch.where(inside, next_h, h), torch.where(inside, next_c, c)
        steps[t] = torch.where(inside, next_h, torch.zeros_like(next_h))
    return torch.stack(steps), h, c
