"""Random graphs on sequences [N, T, F]: attention in several spellings, recurrent layers, einsum, gated products.

Same contract as fuzz.py, which runs both: python -m tests.graph.fuzz --cases 500 --kind sequence
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from tests.graph.builder import Builder

WIDTHS = (6, 8, 12, 16)
TIME = 4


class SequenceGrower:
    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.b = Builder(seed)
        self.batch = int(self.rng.choice([1, 2]))
        self.pool = [self.b.input("x", [self.batch, TIME, 5])]
        self.used: set[str] = set()

    def grow(self, steps: int) -> ir.Model:
        self.pool.append(self.b.linear(self.pool[0], self.width()))
        makers = self.makers()
        for _ in range(steps):
            maker: Callable[[str], None] = makers[int(self.rng.integers(len(makers)))]
            source = str(self.rng.choice(self.pool[1:][-4:]))
            self.used.add(source)
            maker(source)
        ends = [t for t in self.pool[1:] if t not in self.used] or self.pool[-1:]
        for end in ends[-4:]:
            self.b.output(self.b.linear(end, 3))
        return self.b.model()

    def makers(self) -> list[Callable[[str], None]]:
        return (
            [self.linear] * 3
            + [self.activation, self.add, self.concat, self.gated, self.split, self.norm, self.scale, self.recurrent]
            + [self.attention, self.attention, self.packed, self.grouped_query, self.einsum, self.pick, self.tile]
        )

    # -- helpers ------------------------------------------------------------------------------------------------
    def width(self) -> int:
        return int(self.rng.choice(WIDTHS))

    def features(self, x: str) -> int:
        return self.b.shapes[x][2]

    def ints(self, *values: int) -> str:
        return self.b.const(np.array(values, np.int64))

    def heads(self, x: str, count: int) -> str:
        return str(self.b.op("Transpose", [self.b.reshape(x, [0, 0, count, -1])], perm=[0, 2, 1, 3]))

    def attend(self, q: str, k: str, v: str) -> str:
        scores = self.b.op("MatMul", [q, self.b.op("Transpose", [k], perm=[0, 1, 3, 2])])
        if self.rng.integers(2):
            scores = self.b.op("Add", [scores, self.b.weight(self.b.shapes[scores][1], TIME, TIME)])
        mixed = self.b.op("MatMul", [self.b.op("Softmax", [scores], axis=-1), v])
        return self.b.reshape(self.b.op("Transpose", [mixed], perm=[0, 2, 1, 3]), [0, 0, -1])

    # -- operators ----------------------------------------------------------------------------------------------
    def linear(self, x: str) -> None:
        self.pool.append(self.b.relu(self.b.linear(x, self.width(), bias=bool(self.rng.integers(2)))))

    def activation(self, x: str) -> None:
        self.pool.append(self.b.op(str(self.rng.choice(["Sigmoid", "Tanh", "Erf", "Softplus"])), [x]))

    def add(self, x: str) -> None:
        self.pool.append(self.b.op("Add", [x, self.b.linear(x, self.features(x))]))

    def concat(self, x: str) -> None:
        other = str(self.rng.choice(self.pool[1:]))
        if self.features(x) + self.features(other) <= 48:
            self.pool.append(self.b.op("Concat", [x, other], axis=2))

    def gated(self, x: str) -> None:
        n = self.width()
        self.pool.append(self.b.op("Mul", [self.b.op("Sigmoid", [self.b.linear(x, n)]), self.b.linear(x, n)]))

    def split(self, x: str) -> None:
        half = self.features(x) // 2
        if 2 * half == self.features(x) and half > 1:
            self.pool.extend(self.b.op("Split", [x], outputs=2, axis=2, num_outputs=2))

    def norm(self, x: str) -> None:
        n = self.features(x)
        self.pool.append(self.b.op("LayerNormalization", [x, self.b.weight(n), self.b.weight(n)]))

    def scale(self, x: str) -> None:
        self.pool.append(self.b.op("Mul", [x, self.b.weight(self.features(x))]))

    def tile(self, x: str) -> None:
        if self.features(x) <= 12:
            self.pool.append(self.b.op("Tile", [x, self.ints(1, 1, 2)]))

    def pick(self, x: str) -> None:
        """Some positions of the features, by constant indices."""
        index = self.rng.integers(0, self.features(x), self.features(x) // 2 + 1)
        self.pool.append(self.b.op("Gather", [x, self.b.const(index)], axis=2))

    def attention(self, x: str) -> None:
        count, width = int(self.rng.choice([2, 3, 4])), int(self.rng.choice([2, 4]))
        memory = str(self.rng.choice(self.pool[1:]))
        q, k, v = (self.heads(self.b.linear(s, count * width), count) for s in (x, memory, memory))
        self.pool.append(self.b.linear(self.attend(q, k, v), self.width()))

    def packed(self, x: str) -> None:
        count, width = int(self.rng.choice([2, 3, 4])), int(self.rng.choice([2, 4]))
        grid = self.b.reshape(self.b.linear(x, 3 * count * width), [self.batch, TIME, 3, count, width])
        grid = self.b.op("Transpose", [grid], perm=[2, 0, 3, 1, 4])
        if self.rng.integers(2):
            q, k, v = (self.b.op("Gather", [grid, self.b.const(np.array(i, np.int64))], axis=0) for i in range(3))
        else:
            parts = self.b.op("Split", [grid], outputs=3, axis=0, num_outputs=3)
            q, k, v = (self.b.op("Squeeze", [part, self.ints(0)]) for part in parts)
        self.pool.append(self.attend(q, k, v))

    def grouped_query(self, x: str) -> None:
        groups, repeat, width = 2, int(self.rng.choice([2, 3])), 2
        q = self.heads(self.b.linear(x, groups * repeat * width), groups * repeat)
        shared = []
        for _ in range(2):
            kv = self.b.op("Unsqueeze", [self.heads(self.b.linear(x, groups * width), groups), self.ints(2)])
            wide = self.b.op("Expand", [kv, self.ints(self.batch, groups, repeat, TIME, width)])
            shared.append(self.b.reshape(wide, [self.batch, groups * repeat, TIME, width]))
        self.pool.append(self.attend(q, *shared))

    def einsum(self, x: str) -> None:
        n, m = self.features(x), self.width()
        if self.rng.integers(2):
            self.pool.append(self.b.op("Einsum", [x, self.b.weight(m, n)], equation="btf,gf->btg"))
        else:
            self.pool.append(self.b.op("Einsum", [x, self.b.weight(2, n, m)], equation="btf,hfg->btg"))

    def recurrent(self, x: str) -> None:
        op, gates = (("LSTM", 4), ("GRU", 3), ("RNN", 1))[int(self.rng.integers(3))]
        directions, n, hidden = int(self.rng.choice([1, 2])), self.features(x), 6
        y = self.b.op("Transpose", [x], perm=[1, 0, 2])
        weights = [self.b.weight(directions, gates * hidden, k) for k in (n, hidden)]
        weights.append(self.b.weight(directions, 2 * gates * hidden))
        direction = "bidirectional" if directions == 2 else "reverse"
        y = self.b.op(op, [y, *weights], outputs=2, hidden_size=hidden, direction=direction)[0]
        flat = self.b.op("Transpose", [y], perm=[2, 0, 1, 3])
        self.pool.append(self.b.reshape(flat, [self.batch, TIME, -1]))
