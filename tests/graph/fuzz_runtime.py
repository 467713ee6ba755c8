"""Random graphs on sequences with ONNX Runtime's own operators, mixtures of experts, and products of integers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from tests.graph.fuzz_sequence import TIME, SequenceGrower
from tests.graph.micros_quantised import int8, qdq, scales, weight_dq


class RuntimeGrower(SequenceGrower):
    def makers(self) -> list[Callable[[str], None]]:
        own = [self.packed_attention, self.multi_head, self.skip_norm, self.bias_gelu, self.fused_matmul]
        own += [self.stacked_experts, self.routed_experts, self.qdq_linear, self.integer_product]
        return super().makers() + own * 3

    def packed_attention(self, x: str) -> None:
        heads, n = int(self.rng.choice([2, 3, 4])), self.features(x)
        hidden, narrow = heads * 4, heads * 2
        total = 2 * hidden + narrow
        inputs = [x, self.b.weight(n, total), self.b.weight(total)]
        if self.rng.integers(2):
            inputs += ["", "", self.b.weight(1, heads, TIME, TIME)]
        sizes = [hidden, hidden, narrow]
        self.pool.append(self.b.contrib("Attention", inputs, num_heads=heads, qkv_hidden_sizes=sizes))

    def multi_head(self, x: str) -> None:
        heads = int(self.rng.choice([2, 3, 4]))
        memory = str(self.rng.choice(self.pool[1:]))
        q, k, v = (self.b.linear(s, heads * 4, bias=False) for s in (x, memory, memory))
        bias = [self.b.weight(heads * 12)] if self.rng.integers(2) else []
        self.pool.append(self.b.contrib("MultiHeadAttention", [q, k, v, *bias], num_heads=heads))

    def skip_norm(self, x: str) -> None:
        n = self.features(x)
        inputs = [x, self.b.linear(x, n), *(self.b.weight(n) for _ in range(3))]
        outputs = self.b.contrib("SkipLayerNormalization", inputs, outputs=4)
        self.pool.append(self.b.linear(outputs[int(self.rng.choice([0, 3]))], self.width()))

    def bias_gelu(self, x: str) -> None:
        self.pool.append(self.b.contrib(str(self.rng.choice(["BiasGelu", "FastGelu"])), [x, self.vector(x)]))

    def vector(self, x: str) -> str:
        return self.b.weight(self.features(x))

    def fused_matmul(self, x: str) -> None:
        turned = self.b.op("Transpose", [x], perm=[0, 2, 1])
        weight = self.b.weight(self.width(), self.features(x))
        self.pool.append(self.b.contrib("FusedMatMul", [turned, weight], transA=1, transB=1, alpha=0.7))

    def stacked_experts(self, x: str) -> None:
        """[N, T, F] → [1, N·T, F] → [E, N·T, width] → the sum of what the gates let through."""
        n, experts, width, out = self.features(x), int(self.rng.choice([3, 4])), self.width(), self.width()
        flat = self.b.reshape(x, [1, self.batch * TIME, n])
        kind = str(self.rng.choice(["Softmax", "Sigmoid"]))
        gate = self.b.op("Transpose", [self.b.op(kind, [self.b.linear(flat, experts)])], perm=[2, 1, 0])
        hidden = self.b.op("MatMul", [flat, self.b.weight(experts, n, width)])
        hidden = self.b.relu(self.b.op("Add", [hidden, self.b.weight(experts, 1, width)]))
        made = self.b.op("Mul", [self.b.op("MatMul", [hidden, self.b.weight(experts, width, out)]), gate])
        total = self.b.op("ReduceSum", [made, self.ints(0)], keepdims=0)
        self.pool.append(self.b.reshape(total, [self.batch, TIME, out]))

    def routed_experts(self, x: str) -> None:
        """The highest ranked token of each sample goes through a layer of its own."""
        n = self.features(x)
        order = self.b.op("TopK", [self.b.linear(x, 1), self.ints(1)], outputs=2, axis=1)[1]
        index = self.b.op("Expand", [order, self.ints(self.batch, 1, n)])
        picked = self.b.op("GatherElements", [x, index], axis=1)
        made = self.b.linear(self.b.relu(self.b.linear(picked, self.width())), n)
        self.pool.append(self.b.op("ScatterElements", [x, index, made], axis=1, reduction="add"))

    def qdq_linear(self, x: str) -> None:
        n, out = self.features(x), self.width()
        turned = self.b.op("Transpose", [weight_dq(self.b, out, n)], perm=[1, 0])
        self.pool.append(qdq(self.b, self.b.op("MatMul", [qdq(self.b, x), turned])))

    def integer_product(self, x: str) -> None:
        n, out = self.features(x), self.width()
        data, scale, point = self.b.op("DynamicQuantizeLinear", [x], outputs=3)
        y = self.b.op("MatMulInteger", [data, int8(self.b, n, out), point, self.b.const(np.zeros(out, np.int8))])
        factor = self.b.op("Mul", [scale, scales(self.b, out, n)])
        self.pool.append(self.b.op("Mul", [self.b.op("Cast", [y], to=TensorProto.FLOAT), factor]))
