"""Large graphs, built in code with seeded weights: what analysis and cutting cost as models grow.

Values carry their shapes, as a canonical model's do, so nothing has to be inferred.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

FLOAT = ir.TensorType(ir.DataType.FLOAT)
OPSET = 18


class Writer:
    """Writes nodes one after the other; constants that look alike are drawn from one seeded generator."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[ir.Node] = []
        self.constants: list[ir.Value] = []
        self.inputs: list[ir.Value] = []

    def input(self, *shape: int) -> ir.Value:
        value = ir.Value(name="x", shape=ir.Shape(shape), type=FLOAT)
        self.inputs.append(value)
        return value

    def constant(self, array: np.ndarray) -> ir.Value:
        tensor = ir.tensor(array, name=f"w{len(self.constants)}")
        kind = ir.TensorType(tensor.dtype)
        value = ir.Value(name=tensor.name, const_value=tensor, shape=ir.Shape(array.shape), type=kind)
        self.constants.append(value)
        return value

    def weight(self, *shape: int) -> ir.Value:
        scale = 1 / np.sqrt(max(int(np.prod(shape[1:])), 1))
        return self.constant((self.rng.standard_normal(shape) * scale).astype(np.float32))

    def add(
        self,
        op_type: str,
        inputs: list[ir.Value],
        shape: list[int],
        attributes: Mapping[str, int | list[int]] | None = None,
    ) -> ir.Value:
        node = ir.node(op_type, inputs, attributes=dict(attributes or {}), name=f"n{len(self.nodes)}")
        node.outputs[0].name = f"v{len(self.nodes)}"
        node.outputs[0].shape, node.outputs[0].type = ir.Shape(shape), FLOAT
        self.nodes.append(node)
        return node.outputs[0]

    def model(self, output: ir.Value) -> ir.Model:
        graph = ir.Graph(
            self.inputs,
            [output],
            nodes=self.nodes,
            initializers=self.constants,
            opset_imports={"": OPSET},
            name="scale",
        )
        return ir.Model(graph, ir_version=9)

    # -- layers -------------------------------------------------------------------------------------------------
    def conv(self, x: ir.Value, channels_in: int, channels_out: int, side: int) -> ir.Value:
        inputs = [x, self.weight(channels_out, channels_in, 1, 1), self.weight(channels_out)]
        return self.add("Conv", inputs, [1, channels_out, side, side])

    def linear(self, x: ir.Value, tokens: int, width_in: int, width_out: int) -> ir.Value:
        product = self.add("MatMul", [x, self.weight(width_in, width_out)], [1, tokens, width_out])
        return self.add("Add", [product, self.weight(width_out)], [1, tokens, width_out])


def residual(blocks: int, *, width: int = 16, hidden: int = 12, side: int = 2) -> ir.Model:
    """`blocks` × (conv, relu, conv, add): one long stream and a group for each block; 4 nodes each."""
    w = Writer()
    x = w.conv(w.input(1, 3, side, side), 3, width, side)
    for _ in range(blocks):
        h = w.add("Relu", [w.conv(x, width, hidden, side)], [1, hidden, side, side])
        x = w.add("Add", [x, w.conv(h, hidden, width, side)], [1, width, side, side])
    return w.model(w.conv(x, width, 4, side))


def dense(layers: int, *, growth: int = 4, block: int = 24, side: int = 2) -> ir.Model:
    """DenseNet: every layer reads all layers of its block; 3 nodes each, a transition between blocks."""
    w = Writer()
    x = w.conv(w.input(1, 3, side, side), 3, growth, side)
    width = growth
    for number in range(layers):
        if number % block == block - 1:
            x, width = w.conv(x, width, growth, side), growth
        h = w.add("Relu", [w.conv(x, width, growth, side)], [1, growth, side, side])
        width += growth
        x = w.add("Concat", [x, h], [1, width, side, side], {"axis": 1})
    return w.model(w.conv(x, width, 4, side))


def dense_unbroken(layers: int) -> ir.Model:
    """DenseNet without transitions: the last layer reads `layers` others."""
    return dense(layers, block=layers + 1)


def transformer(layers: int, *, width: int = 32, heads: int = 4, tokens: int = 4) -> ir.Model:
    """`layers` × (norm, attention with heads, norm, feed-forward with Gelu by Erf); 30 nodes each."""
    w = Writer()
    size = width // heads
    x = w.linear(w.input(1, tokens, 8), tokens, 8, width)
    for _ in range(layers):
        y = _norm(w, x, tokens, width)
        q, k, v = (_heads(w, w.linear(y, tokens, width, width), tokens, heads, size) for _ in range(3))
        turned = w.add("Transpose", [k], [1, heads, size, tokens], {"perm": [0, 1, 3, 2]})
        square = [1, heads, tokens, tokens]
        scores = w.add("Softmax", [w.add("MatMul", [q, turned], square)], square)
        mixed = w.add("MatMul", [scores, v], [1, heads, tokens, size])
        flat = w.add("Transpose", [mixed], [1, tokens, heads, size], {"perm": [0, 2, 1, 3]})
        joined = w.add("Reshape", [flat, w.constant(np.array([0, 0, width]))], [1, tokens, width])
        x = w.add("Add", [x, w.linear(joined, tokens, width, width)], [1, tokens, width])
        h = w.linear(_norm(w, x, tokens, width), tokens, width, 2 * width)
        h = w.add("Mul", [h, w.add("Sigmoid", [h], [1, tokens, 2 * width])], [1, tokens, 2 * width])
        x = w.add("Add", [x, w.linear(h, tokens, 2 * width, width)], [1, tokens, width])
    return w.model(w.linear(x, tokens, width, 4))


def _norm(w: Writer, x: ir.Value, tokens: int, width: int) -> ir.Value:
    return w.add("LayerNormalization", [x, w.weight(width), w.weight(width)], [1, tokens, width])


def _heads(w: Writer, x: ir.Value, tokens: int, heads: int, size: int) -> ir.Value:
    split = w.add("Reshape", [x, w.constant(np.array([0, 0, heads, size]))], [1, tokens, heads, size])
    return w.add("Transpose", [split], [1, heads, tokens, size], {"perm": [0, 2, 1, 3]})


def write_large(path: Path, gigabytes: float, *, width: int = 2048, hidden: int = 8192) -> int:
    """Feed-forward blocks whose weights lie in `path`.data, written one at a time; returns their bytes."""
    w = Writer()
    data = path.with_name(f"{path.name}.data")
    block = 4 * 2 * width * hidden
    written = 0
    x = w.input(1, 4, width)
    with data.open("wb") as file:
        for number in range(max(int(gigabytes * 1e9 / block), 1)):
            for rows, columns in ((width, hidden), (hidden, width)):
                array = w.rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(rows**-0.5)
                file.write(array.tobytes())
                tensor = ir.ExternalTensor(
                    data.name, written, array.nbytes, ir.DataType.FLOAT, shape=ir.Shape(array.shape),
                    name=f"large{number}_{rows}", base_dir=path.parent,
                )  # fmt: skip
                value = ir.Value(name=tensor.name, const_value=tensor, shape=ir.Shape(array.shape), type=FLOAT)
                w.constants.append(value)
                written += array.nbytes
                x = w.add("MatMul", [x, value], [1, 4, columns])
                x = w.add("Relu", [x], [1, 4, columns]) if columns == hidden else x
    ir.save(w.model(x), path)
    return written


GRAPHS: dict[str, tuple[Callable[[int], ir.Model], int]] = {
    "residual": (residual, 2500),
    "dense": (dense, 3300),
    "dense_unbroken": (dense_unbroken, 400),
    "transformer": (transformer, 100),
}
"""Builder, and the size that the benchmark and the tests call n."""
