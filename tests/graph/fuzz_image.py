"""Random graphs on images [N, C, H, W]: convolutions and everything that moves, gates or resizes channels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from tests.graph.builder import Builder

WIDTHS = (4, 6, 8, 12, 16)


class Grower:
    """Grows one random graph on NCHW (and [N, F]) tensors; `pool` holds every tensor made so far."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.b = Builder(seed)
        side = int(self.rng.choice([4, 6]))
        self.pool = [self.b.input("x", [int(self.rng.choice([1, 2])), 3, side, side])]
        self.used: set[str] = set()

    def grow(self, steps: int) -> ir.Model:
        self.pool.append(self.b.conv(self.pool[0], self.width()))
        makers = self.makers()
        for _ in range(steps):
            maker: Callable[[str], None] = makers[int(self.rng.integers(len(makers)))]
            maker(self.pick())
        self.finish()
        return self.b.model()

    def makers(self) -> list[Callable[[str], None]]:
        return (
            [self.conv] * 3
            + [self.grouped, self.depthwise, self.activation, self.add, self.concat, self.gate, self.split, self.slice]
            + [
                self.gather,
                self.shuffle,
                self.norm,
                self.scale,
                self.pool_,
                self.transpose_conv,
                self.pixel,
                self.resize,
            ]
            + [
                self.reduce,
                self.tile,
                self.pad,
                self.nhwc,
                self.instance_norm,
                self.expand,
                self.where,
                self.merge_space,
            ]
        )

    # -- choices ------------------------------------------------------------------------------------------------
    def width(self) -> int:
        return int(self.rng.choice(WIDTHS))

    def pick(self) -> str:
        recent = self.pool[1:][-4:]
        name = str(self.rng.choice(recent))
        self.used.add(name)
        return name

    def channels(self, x: str) -> int:
        return self.b.shapes[x][1]

    def add_to_pool(self, *names: str) -> None:
        self.pool.extend(names)

    def partner(self, x: str) -> str | None:
        same = [p for p in self.pool[1:] if self.b.shapes[p] == self.b.shapes[x] and p != x]
        return str(self.rng.choice(same)) if same else None

    def ints(self, *values: int) -> str:
        return self.b.const(np.array(values, np.int64))

    # -- operators ----------------------------------------------------------------------------------------------
    def conv(self, x: str) -> None:
        k = int(self.rng.choice([1, 3]))
        self.add_to_pool(self.b.relu(self.b.conv(x, self.width(), k, bias=bool(self.rng.integers(2)))))

    def grouped(self, x: str) -> None:
        if self.channels(x) % 2 == 0:
            self.add_to_pool(self.b.conv(x, 2 * self.width(), group=2))

    def depthwise(self, x: str) -> None:
        n = self.channels(x)
        self.add_to_pool(self.b.conv(x, n * int(self.rng.choice([1, 2])), group=n))

    def activation(self, x: str) -> None:
        op = str(self.rng.choice(["Relu", "Sigmoid", "HardSwish", "Elu", "LeakyRelu", "Erf", "Softplus"]))
        self.add_to_pool(self.b.op(op, [x]))

    def add(self, x: str) -> None:
        other = self.partner(x) or self.b.conv(x, self.channels(x))
        self.add_to_pool(self.b.op(str(self.rng.choice(["Add", "Sub", "Max"])), [x, other]))

    def concat(self, x: str) -> None:
        shape = self.b.shapes[x]
        same = [p for p in self.pool[1:] if self.b.shapes[p][2:] == shape[2:]]
        parts = [x, *(str(p) for p in self.rng.choice(same, min(len(same), int(self.rng.integers(1, 3)))))]
        if sum(self.channels(p) for p in parts) <= 64:
            self.add_to_pool(self.b.op("Concat", parts, axis=1))

    def gate(self, x: str) -> None:
        pooled = self.b.op("ReduceMean", [x, self.ints(2, 3)])
        hidden = self.b.relu(self.b.conv(pooled, 4, 1))
        gate = self.b.op("Sigmoid", [self.b.conv(hidden, self.channels(x), 1)])
        self.add_to_pool(self.b.op("Mul", [gate, x] if self.rng.integers(2) else [x, gate]))

    def split(self, x: str) -> None:
        n = self.channels(x)
        if n < 2:
            return
        first = int(self.rng.integers(1, n))
        a, c = self.b.op("Split", [x, self.ints(first, n - first)], outputs=2, axis=1)
        self.add_to_pool(a, c)

    def slice(self, x: str) -> None:
        n = self.channels(x)
        if n < 2:
            return
        start, step = int(self.rng.integers(0, n // 2)), int(self.rng.choice([1, 1, 2]))
        end = int(self.rng.integers(start + 1, n + 1))
        self.add_to_pool(self.b.op("Slice", [x, self.ints(start), self.ints(end), self.ints(1), self.ints(step)]))

    def gather(self, x: str) -> None:
        n = self.channels(x)
        if n < 2:
            return
        index = self.rng.integers(-n, n, int(self.rng.integers(2, n + 1)))
        self.add_to_pool(self.b.op("Gather", [x, self.b.const(index)], axis=1))

    def shuffle(self, x: str) -> None:
        n, c, h, w = self.b.shapes[x]
        if c % 2 == 0:
            grid = self.b.reshape(x, [n, 2, c // 2, h, w])
            self.add_to_pool(self.b.reshape(self.b.op("Transpose", [grid], perm=[0, 2, 1, 3, 4]), [n, -1, h, w]))

    def norm(self, x: str) -> None:
        self.add_to_pool(self.b.relu(self.b.batch_norm(x)))

    def instance_norm(self, x: str) -> None:
        n = self.channels(x)
        if self.b.shapes[x][2] > 1:
            self.add_to_pool(self.b.op("InstanceNormalization", [x, self.b.weight(n), self.b.weight(n)]))

    def scale(self, x: str) -> None:
        self.add_to_pool(self.b.op("Mul", [x, self.b.weight(1, self.channels(x), 1, 1)]))

    def where(self, x: str) -> None:
        test = self.b.op("Greater", [x, self.b.const(np.float32(0.1))])
        self.add_to_pool(self.b.op("Where", [test, x, self.b.weight(self.channels(x), 1, 1)]))

    def pool_(self, x: str) -> None:
        if self.b.shapes[x][2] >= 2:
            op = str(self.rng.choice(["MaxPool", "AveragePool"]))
            self.add_to_pool(self.b.op(op, [x], kernel_shape=[2, 2], strides=[1, 1]))

    def transpose_conv(self, x: str) -> None:
        if self.b.shapes[x][2] <= 6:
            group = 2 if self.channels(x) % 2 == 0 and self.rng.integers(2) else 1
            self.add_to_pool(self.b.conv_transpose(x, self.width(), group=group))

    def pixel(self, x: str) -> None:
        if self.channels(x) % 4 == 0 and self.b.shapes[x][2] <= 6:
            mode = str(self.rng.choice(["CRD", "DCR"]))
            self.add_to_pool(self.b.op("DepthToSpace", [x], blocksize=2, mode=mode))
        elif self.b.shapes[x][2] % 2 == 0 and self.channels(x) <= 8:
            self.add_to_pool(self.b.op("SpaceToDepth", [x], blocksize=2))

    def resize(self, x: str) -> None:
        n, c, h, w = self.b.shapes[x]
        if h <= 6:
            sizes = self.ints(n, c, 2 * h, 2 * w)
            self.add_to_pool(self.b.op("Resize", [x, "", "", sizes], mode="nearest"))

    def reduce(self, x: str) -> None:
        self.add_to_pool(self.b.op("Mul", [x, self.b.op("ReduceSum", [x, self.ints(1)])]))

    def tile(self, x: str) -> None:
        if self.channels(x) <= 16:
            self.add_to_pool(self.b.op("Tile", [x, self.ints(1, 2, 1, 1)]))

    def pad(self, x: str) -> None:
        extra = int(self.rng.integers(0, 3))
        self.add_to_pool(self.b.op("Pad", [x, self.ints(0, extra, 1, 0, 0, 1, 0, 0)]))

    def nhwc(self, x: str) -> None:
        y = self.b.op("Transpose", [x], perm=[0, 2, 3, 1])
        if self.rng.integers(2):
            n = self.channels(x)
            y = self.b.op("LayerNormalization", [y, self.b.weight(n), self.b.weight(n)])
        y = self.b.relu(self.b.linear(y, self.width(), bias=bool(self.rng.integers(2))))
        self.add_to_pool(self.b.op("Transpose", [y], perm=[0, 3, 1, 2]))

    def expand(self, x: str) -> None:
        gate = self.b.op("Sigmoid", [self.b.conv(x, 1, 1)])
        self.add_to_pool(self.b.op("Mul", [x, self.b.op("Expand", [gate, self.ints(*self.b.shapes[x])])]))

    def merge_space(self, x: str) -> None:
        """[N, C, H, W] → [N, C, H·W] → attention-like product with itself → back."""
        n, c, h, w = self.b.shapes[x]
        flat = self.b.reshape(x, [n, c, -1])
        scores = self.b.op("MatMul", [self.b.op("Transpose", [flat], perm=[0, 2, 1]), flat])
        mixed = self.b.op("MatMul", [flat, self.b.op("Softmax", [scores], axis=-1)])
        self.add_to_pool(self.b.reshape(mixed, [0, c, h, w]))

    # -- ends ---------------------------------------------------------------------------------------------------
    def finish(self) -> None:
        """Every unused tensor ends in a layer of its own, so that nothing is free to be wrong."""
        ends = [t for t in self.pool[1:] if t not in self.used] or self.pool[-1:]
        for end in ends[-4:]:
            n, c, h, w = self.b.shapes[end]
            if self.rng.integers(2):
                self.b.output(self.b.conv(end, 3, 1))
            else:
                self.b.output(self.b.gemm(self.b.reshape(end, [n, c * h * w]), 3))
