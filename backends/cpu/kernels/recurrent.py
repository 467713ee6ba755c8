"""Recurrent layers: all time steps of RNN, GRU and LSTM in one kernel, both directions side by side.

    rnn    h = f(x + R·h₋)
    gru    z, r = f(x + R·h₋)    n = g(xₙ + r ⊙ (Rₙ·h₋ + bₙ)), or g(xₙ + Rₙ·(r ⊙ h₋))    h = (1 − z) ⊙ n + z ⊙ h₋
    lstm   i, o, f = f(x + R·h₋)    c = f ⊙ c₋ + i ⊙ g(x + R·h₋)    h = o ⊙ h(c)

x = W·input + b is computed for all steps at once before. R is family A: blocks of a vector of outputs × 1 input, gate
by gate, so zero blocks cost nothing. Sums of one vector are split over a few registers: each waits for the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tvm.tirx.script.builder import ir as T

from prunec.backends.cpu.expression import operand, unary
from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.arithmetic import emit, maximum
from prunec.backends.cpu.kernels.base import Access, Argument, Kernel, Sums, ceil_div, load, pieces, span, splat, store

Cell = Literal["rnn", "gru", "gru_reset_first", "lstm"]
GATES: dict[Cell, int] = {"rnn": 1, "gru": 3, "gru_reset_first": 3, "lstm": 4}
_TILE = 4
"""Rows of the batch that share the weights of a register, or sums that one row is split into."""


@dataclass(frozen=True)
class Recurrent(Kernel):
    """`x`: strides of step, batch row, direction; there the gates lie side by side, `hidden` numbers each.

    `state` (read and written): strides of slot, row, direction. Slot t + 1 gets the result of step t; slot 0 holds what
    the forward direction starts from, slot `steps` + 1 what the backward one does. `cell` and `spare` lie in the same
    buffer (strides of row, direction): the cell of an LSTM, and two vectors for a GRU that resets first.
    `reverse`: whether the first direction runs backwards. `columns`: most blocks of a row of blocks.
    """

    family: ClassVar[str] = "recurrent"

    kind: Cell
    steps: int
    batch: int
    directions: int
    hidden: int
    rows: int
    x: Access
    state: Access
    cell: Access
    spare: Access
    reverse: bool = False
    activations: tuple[str, ...] = ("sigmoid", "tanh", "tanh")

    @property
    def gates(self) -> int:
        return GATES[self.kind]

    @property
    def units(self) -> int:
        """Vectors that the hidden numbers take."""
        return ceil_div(self.hidden, self.rows)

    def arguments(self) -> tuple[Argument, ...]:
        row_blocks = self.directions * self.units * self.gates
        return (
            Argument("x", "float32", self.x.size),
            Argument("values", "float32", row_blocks * self.hidden * self.rows),
            Argument("index", "int32", row_blocks * self.hidden),
            Argument("pointer", "int32", row_blocks + 1),
            Argument("bias", "float32", self.directions * self.units * self.rows),
            Argument("state", "float32", self.state.size),
        )

    def emit(self, isa: Isa, x: Any, values: Any, index: Any, pointer: Any, bias: Any, state: Any) -> None:
        assert self.rows == isa.lanes("float32")
        whole, rest = divmod(self.batch, _TILE)
        for first, tiles, high in ((0, whole, _TILE), (whole * _TILE, rest, 1)):
            if not tiles:
                continue
            jobs = self.directions * tiles
            with (T.parallel if jobs > 1 else T.serial)(0, jobs) as job:
                direction, row = job // tiles, T.bind(first + job % tiles * high)
                backward = (direction + int(self.reverse)) if self.directions > 1 else int(self.reverse)
                with T.serial(0, self.steps) as k:
                    t = T.bind(k + backward * (self.steps - 1 - 2 * k))
                    step = _Step(self, x, values, index, pointer, bias, state, direction, row, t, backward, high)
                    step.run()


class _Step:
    """One time step of one direction for `high` rows of the batch."""

    def __init__(
        self, kernel: Recurrent, x: Any, values: Any, index: Any, pointer: Any, bias: Any, state: Any, direction: Any,
        row: Any, t: Any, backward: Any, high: int,
    ) -> None:  # fmt: skip
        self.k, self.x, self.values, self.index, self.pointer = kernel, x, values, index, pointer
        self.bias, self.state, self.direction, self.t, self.high = bias, state, direction, t, high
        rows = [row + i for i in range(high)]
        self.before = [T.bind(kernel.state.at(t + 2 * backward, r, direction)) for r in rows]
        self.after = [T.bind(kernel.state.at(t + 1, r, direction)) for r in rows]
        self.given = [T.bind(kernel.x.at(t, r, direction)) for r in rows]
        self.cell = [kernel.cell.at(r, direction) for r in rows]
        self.spare = [kernel.spare.at(r, direction) for r in rows]

    def run(self) -> None:
        if self.k.kind == "gru_reset_first":
            self.units((0, 1), self.before, self.write_reset)
            self.units((2,), self.spare, self.write_after_reset)
        else:
            write = {"rnn": self.write_rnn, "gru": self.write_gru, "lstm": self.write_lstm}[self.k.kind]
            self.units(tuple(range(self.k.gates)), self.before, write)

    def units(self, gates: Sequence[int], source: Sequence[Any], write: Any) -> None:
        """`write(unit's start, width, row, sums of the gates)` for every vector of hidden numbers and row."""
        lanes = self.k.rows
        full, rest = divmod(self.k.hidden, lanes)

        def vector(unit: Any, widths: Sequence[tuple[int, int]]) -> None:
            totals = T.alloc_buffer((len(gates) * self.high * lanes,), "float32", scope="local")
            for place, gate in enumerate(gates):
                self.product((self.direction * self.k.units + unit) * self.k.gates + gate, source, totals, place)
            for i in range(self.high):
                for start, wide in widths:
                    sums = [T.bind(load(totals, (g * self.high + i) * lanes + start, wide)) for g in range(len(gates))]
                    write(unit * lanes + start, wide, i, sums)

        if full:
            with T.serial(0, full) as unit:
                vector(unit, [(0, lanes)])
        if rest:
            vector(full, list(pieces(rest, lanes)))

    def product(self, m: Any, source: Sequence[Any], totals: Any, place: int) -> None:
        """Row `m` of blocks times the vector of every row of the batch."""
        lanes, high = self.k.rows, self.high
        parts = _TILE // high
        sums = Sums(_TILE, lanes)
        for part in range(_TILE):
            sums.set(part, splat(0.0, lanes))
        start = T.bind(self.pointer[m])
        count = T.bind(self.pointer[m + 1] - start)

        def block(p: Any, part: int) -> None:
            weight = T.bind(load(self.values, p * lanes, lanes))
            at = T.bind(self.index[p])
            for i in range(high):
                value = T.Broadcast(self.state[source[i] + at], lanes) * weight
                sums.set(part * high + i, sums.get(part * high + i) + value)

        with T.serial(0, count // parts) as q:
            for part in range(parts):
                block(start + q * parts + part, part)
        if parts > 1:
            with span(start + count // parts * parts, start + count) as p:
                block(p, 0)
        for i in range(high):
            total = sums.get(i)
            for part in range(1, parts):
                total = total + sums.get(part * high + i)
            store(totals, (place * high + i) * lanes, total, lanes)

    def act(self, number: int, value: Any, wide: int) -> Any:
        name = self.k.activations[number]
        if name == "relu":
            return T.bind(maximum(value, splat(0.0, wide)))
        return T.bind(emit(unary(name, operand(0)), [value], wide))

    def input(self, gate: int, unit: Any, wide: int, i: int) -> Any:
        return load(self.x, self.given[i] + gate * self.k.hidden + unit, wide)

    def write_rnn(self, unit: Any, wide: int, i: int, sums: list[Any]) -> None:
        value = self.act(0, T.bind(sums[0] + self.input(0, unit, wide, i)), wide)
        store(self.state, self.after[i] + unit, value, wide)

    def write_gru(self, unit: Any, wide: int, i: int, sums: list[Any]) -> None:
        z, r = (self.act(0, T.bind(sums[g] + self.input(g, unit, wide, i)), wide) for g in (0, 1))
        bias = load(self.bias, self.direction * self.k.units * self.k.rows + unit, wide)
        n = self.act(1, T.bind(r * (sums[2] + bias) + self.input(2, unit, wide, i)), wide)
        self.mix(unit, wide, i, z, n)

    def mix(self, unit: Any, wide: int, i: int, z: Any, n: Any) -> None:
        before = load(self.state, self.before[i] + unit, wide)
        store(self.state, self.after[i] + unit, (splat(1.0, wide) - z) * n + z * before, wide)

    def write_reset(self, unit: Any, wide: int, i: int, sums: list[Any]) -> None:
        z, r = (self.act(0, T.bind(sums[g] + self.input(g, unit, wide, i)), wide) for g in (0, 1))
        store(self.state, self.spare[i] + unit, r * load(self.state, self.before[i] + unit, wide), wide)
        store(self.state, self.spare[i] + self.k.hidden + unit, z, wide)

    def write_after_reset(self, unit: Any, wide: int, i: int, sums: list[Any]) -> None:
        n = self.act(1, T.bind(sums[0] + self.input(2, unit, wide, i)), wide)
        z = T.bind(load(self.state, self.spare[i] + self.k.hidden + unit, wide))
        self.mix(unit, wide, i, z, n)

    def write_lstm(self, unit: Any, wide: int, i: int, sums: list[Any]) -> None:
        gate_in, gate_out, forget = (
            self.act(0, T.bind(sums[g] + self.input(g, unit, wide, i)), wide) for g in (0, 1, 2)
        )
        fresh = self.act(1, T.bind(sums[3] + self.input(3, unit, wide, i)), wide)
        cell = T.bind(forget * load(self.state, self.cell[i] + unit, wide) + gate_in * fresh)
        store(self.state, self.cell[i] + unit, cell, wide)
        store(self.state, self.after[i] + unit, gate_out * self.act(2, cell, wide), wide)
