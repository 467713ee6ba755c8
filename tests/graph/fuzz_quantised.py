"""Random quantised graphs on images: QDQ, QLinear and on-the-fly layers among the operators of fuzz_image.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from tests.graph.fuzz_image import Grower
from tests.graph.micros_quantised import SCALE, int8, number, qdq, qdq_conv, qlinear_conv, scales, zero


class QuantisedGrower(Grower):
    def makers(self) -> list[Callable[[str], None]]:
        own = [self.qdq_conv, self.qdq, self.per_channel, self.fake, self.integers, self.on_the_fly]
        return super().makers() + own * 5

    def qdq(self, x: str) -> None:
        self.add_to_pool(qdq(self.b, x))

    def qdq_conv(self, x: str) -> None:
        n = self.channels(x)
        if self.rng.integers(3) == 0:
            self.add_to_pool(qdq_conv(self.b, qdq(self.b, x), n, group=n))
        else:
            self.add_to_pool(qdq(self.b, self.b.relu(qdq_conv(self.b, qdq(self.b, x), self.width()))))

    def per_channel(self, x: str) -> None:
        n = self.channels(x)
        points = self.b.const(self.rng.integers(0, 255, n).astype(np.uint8))
        parameters = [self.b.const((self.rng.random(n) / 50 + 0.01).astype(np.float32)), points]
        q = self.b.op("QuantizeLinear", [x, *parameters], axis=1)
        self.add_to_pool(self.b.op("DequantizeLinear", [q, *parameters], axis=1))

    def fake(self, x: str) -> None:
        n, out = self.channels(x), self.width()
        parameters = [scales(self.b, out, 1), self.b.const(np.zeros(out, np.int8))]
        q = self.b.op("QuantizeLinear", [self.b.weight(out, n, 1, 1), *parameters], axis=0)
        self.add_to_pool(self.b.op("Conv", [x, self.b.op("DequantizeLinear", [q, *parameters], axis=0)]))

    def integers(self, x: str) -> None:
        """A stretch of operators on integers: convolution, residual, concatenation."""
        one = [number(self.b, SCALE), zero(self.b)]
        out = self.width()
        y = qlinear_conv(self.b, self.b.op("QuantizeLinear", [x, *one]), out)
        z = qlinear_conv(self.b, y, out, group=int(self.rng.choice([1, 2, out])))
        if self.rng.integers(2):
            y = self.b.contrib("QLinearAdd", [y, *one, z, *one, *one])
        else:
            y = self.b.contrib("QLinearConcat", [*one, z, *one, y, *one], axis=1)
        if self.rng.integers(2):
            pooled = self.b.contrib("QLinearGlobalAveragePool", [y, *one, *one], channels_last=0)
            y = self.b.contrib("QLinearMul", [y, *one, pooled, *one, *one])
        self.add_to_pool(self.b.op("DequantizeLinear", [y, *one]))

    def on_the_fly(self, x: str) -> None:
        out = self.width()
        data, scale, point = self.b.op("DynamicQuantizeLinear", [x], outputs=3)
        inputs = [data, int8(self.b, out, self.channels(x), 3, 3), point, self.b.const(np.int8(0))]
        y = self.b.op("ConvInteger", inputs, pads=[1] * 4)
        factor = self.b.op("Mul", [scale, number(self.b, 0.001)])
        self.add_to_pool(self.b.op("Mul", [self.b.op("Cast", [y], to=TensorProto.FLOAT), factor]))
