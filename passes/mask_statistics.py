"""The reference for a mean over channels of which some are gone (class C): the mean of those that are left.

    mean(x) = Σ_c m_c x_c / k,        m: the mask, k = Σ_c m_c

as an explicit `Mul` by the mask, a sum and a `Div` by k, in the dense model at its full width. `ReduceMean` reads that
mean; the norms are written out with it:

    LayerNormalization   y = γ (x − μ)/√(mean((x − μ)²) + ε) + β,  μ = mean(x)
    RMSNormalization     y = γ x/√(mean(x²) + ε)

Channels that are gone keep some value in y, which the masks at the consumers of y remove.

Softmax and TopK weigh experts against each other: those that are gone have the logit −∞, so that the softmax gives them
nothing, and none of them is among the winners (of the smallest: +∞).
"""

from __future__ import annotations

import re

import numpy as np
import onnx_ir as ir

from prunec.graph import Analysis
from prunec.graph.rules.base import attribute, given

MASKS = re.compile(r"prunec\.statistic\.\d+\.(mask|left|keep)")
"""Names of the constants that depend on what is left."""


def mask_statistics(
    model: ir.Model, analysis: Analysis, alive: np.ndarray, *, may_go: np.ndarray | None = None
) -> None:
    """Rewrite, in place, every mean that loses channels, and those over `may_go` (both bool per class id)."""
    nodes = {node.name: node for node in model.graph}
    for number, statistic in enumerate(analysis.statistics):
        keep = alive[statistic.ids]
        if keep.all() and (may_go is None or not may_go[statistic.ids].any()):
            continue
        writer = _Writer(model.graph, nodes[statistic.node], f"prunec.statistic.{number}", statistic.axis, keep)
        if writer.node.op_type in ("Softmax", "TopK"):
            writer.leave_out()
        elif writer.node.op_type == "ReduceMean":
            writer.node.replace_input_with(0, writer.mean(writer.data))
        elif writer.node.op_type in SKIP_NORMS:
            writer.write_skip_norm()
        else:
            writer.write_norm()


def constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """A new initializer."""
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape))
    graph.register_initializer(value)
    return value


def mask_constant(graph: ir.Graph, data: ir.Value, axis: int, keep: np.ndarray, name: str) -> ir.Value:
    """`keep` (bool [L]) in the type of `data`, shaped to multiply its `axis`."""
    shape = [1] * len(data.shape or ())
    shape[axis] = len(keep)
    return constant(graph, name, keep.astype(_dtype(data)).reshape(shape))


def _dtype(data: ir.Value) -> np.dtype:
    return np.dtype((data.dtype or ir.DataType.FLOAT).numpy())


SKIP_NORMS = frozenset({"SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "SkipRMSNormalization"})
"""ONNX Runtime's norms with an addition inside: (x, skip, γ, β, bias), without β where nothing is centred."""


class _Writer:
    """Writes the nodes that stand for one statistic, in front of its node."""

    def __init__(self, graph: ir.Graph, node: ir.Node, name: str, axis: int, keep: np.ndarray) -> None:
        data = node.inputs[0]
        assert data is not None
        self.graph, self.node, self.name, self.data = graph, node, name, data
        self.count = 0
        self.mask = mask_constant(graph, data, axis, keep, f"{name}.mask")
        self.keep = keep.reshape([-1 if a == axis else 1 for a in range(len(data.shape or ()))])
        self.axes = constant(graph, f"{name}.axes", np.array([axis], np.int64))
        self.left = self.scalar("left", int(keep.sum()))

    def scalar(self, name: str, number: float) -> ir.Value:
        return constant(self.graph, f"{self.name}.{name}", np.array(number, _dtype(self.data)))

    def add(self, op_type: str, *inputs: ir.Value | None) -> ir.Value:
        self.count += 1
        name = f"{self.name}.{self.count}"
        new = ir.node(op_type, list(inputs), name=name)
        new.outputs[0].name = name
        new.outputs[0].type = self.data.type
        self.graph.insert_before(self.node, new)
        return new.outputs[0]

    def leave_out(self) -> None:
        """Let the node see channels that are gone at the very end of the ranking."""
        end = np.inf if not int(attribute(self.node, "largest", 1)) else -np.inf
        keep = constant(self.graph, f"{self.name}.keep", self.keep)
        self.node.replace_input_with(0, self.add("Where", keep, self.data, self.scalar("end", end)))

    def mean(self, x: ir.Value) -> ir.Value:
        """Over the channels that are left; the axis stays, with length 1."""
        return self.add("Div", self.add("ReduceSum", self.add("Mul", x, self.mask), self.axes), self.left)

    def write_norm(self) -> None:
        """Replace a norm by what it computes."""
        default = 0.0 if self.node.op_type == "SimplifiedLayerNormalization" else 1e-5
        result = self.norm(self.node.op_type == "LayerNormalization", default, [(1, "Mul"), (2, "Add")])
        self.replace([(self.node.outputs[0], result)])

    def write_skip_norm(self) -> None:
        """The same with the sum that comes first, which is an output as well."""
        centred = self.node.op_type == "SkipLayerNormalization"
        self.data = self.add("Add", self.data, self.node.inputs[1])
        bias = 4 if centred else 3
        if given(self.node, bias):
            self.data = self.add("Add", self.data, self.node.inputs[bias])
        self.data.type = self.node.outputs[0].type
        result = self.norm(centred, 1e-12, [(2, "Mul"), *([(3, "Add")] if centred else [])])
        sums = [(value, self.data) for value in self.node.outputs[3:4]]
        self.replace([(self.node.outputs[0], result), *sums])

    def norm(self, centres: bool, epsilon: float, after: list[tuple[int, str]]) -> ir.Value:
        """x − μ (or x) over its deviation, then the vectors at the given inputs."""
        small = self.scalar("epsilon", float(attribute(self.node, "epsilon", epsilon)))
        centred = self.add("Sub", self.data, self.mean(self.data)) if centres else self.data
        variance = self.mean(self.add("Mul", centred, centred))
        result = self.add("Div", centred, self.add("Sqrt", self.add("Add", variance, small)))
        for index, op_type in after:
            if given(self.node, index):
                result = self.add(op_type, result, self.node.inputs[index])
        return result

    def replace(self, pairs: list[tuple[ir.Value, ir.Value]]) -> None:
        """Put new values in the place of the node's outputs."""
        for old, new in pairs:
            new.shape, new.type = old.shape, old.type
        olds, news = [old for old, _ in pairs], [new for _, new in pairs]
        ir.convenience.replace_nodes_and_values(self.graph, self.node, [self.node], [], olds, news)
