"""The integers that a quantised model has for weights and biases as real numbers that training may move, and back.

A weight behind DequantizeLinear gets a QuantizeLinear of the same scale before it, which reads its master: the real
number whose nearest multiple of the step it is. Biases in 32 bits are so fine that they are their own masters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunec.graph.shapes import constant, dims, is_constant
from prunec.graph.weights import dequantised, quantised_axis
from prunec.passes.quantise.nodes import add_constant
from prunec.passes.quantise.weights import LEVELS

_BIAS_LIMIT = 2**31 - 1


@dataclass(frozen=True)
class MasterGrid:
    """`integers`: the initializer on it in the quantised model. `steps` broadcast with it; at most `levels` of them."""

    integers: str
    steps: np.ndarray
    levels: int

    def limits(self) -> np.ndarray:
        """The largest magnitudes that a master may have, float32."""
        found: np.ndarray = (self.steps * self.levels).astype(np.float32)
        return found

    def whole(self, master: np.ndarray) -> np.ndarray:
        """The nearest integers, int64."""
        found = np.clip(np.rint(master.astype(np.float64) / self.steps.astype(np.float64)), -self.levels, self.levels)
        return found.astype(np.int64)


@dataclass(frozen=True)
class Masters:
    """`model`: with masters (float32 initializers) behind quantisers. `grids` by the name of the master."""

    model: ir.Model
    grids: Mapping[str, MasterGrid]


def with_masters(quantised: ir.Model, bits: int) -> Masters:
    """Of a model as `quantise` writes it: zero points of constants are 0. `bits` of the weights. `quantised` stays."""
    model = quantised.clone()
    graph, grids = model.graph, dict[str, MasterGrid]()
    for node in [own for own in graph if own.op_type == "DequantizeLinear" and is_constant(own.inputs[0])]:
        data, scale = constant(node.inputs[0]), constant(node.inputs[1])
        if (
            data is None
            or scale is None
            or data.dtype not in (np.int8, np.int32)
            or len(dims(node.inputs[1]) or ()) > 1
        ):
            continue
        assert node.inputs[0] is not None
        axis, integers = quantised_axis(node), str(node.inputs[0].name)
        name = f"{node.outputs[0].name}.float"
        master = add_constant(graph, name, dequantised(data, scale, None, axis).astype(np.float32))
        steps = scale.reshape([-1 if own == axis and scale.size > 1 else 1 for own in range(data.ndim)])
        if data.dtype == np.int32:
            grids[name] = MasterGrid(integers, steps, _BIAS_LIMIT)
            node.outputs[0].replace_all_uses_with(master)
            graph.remove(node, safe=True)
            continue
        grids[name] = MasterGrid(integers, steps, LEVELS[bits])
        quantise = ir.node(
            "QuantizeLinear", [master, *node.inputs[1:]], attributes={"axis": axis}, name=f"{node.name}.master"
        )
        made = quantise.outputs[0]
        made.name, made.type, made.shape = f"{name}.int8", ir.TensorType(ir.DataType.INT8), ir.Shape(data.shape)
        graph.insert_before(node, quantise)
        node.replace_input_with(0, made)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
    return Masters(model, grids)


def on_grids(quantised: ir.Model, masters: Masters, trained: ir.Model) -> ir.Model:
    """A copy of `quantised` with the initializers of `trained` (`masters.model`, trained), masters at their nearest."""
    copy = quantised.clone()
    for name, value in trained.graph.initializers.items():
        array = constant(value)
        assert array is not None
        grid = masters.grids.get(name)
        own = copy.graph.initializers.get(name if grid is None else grid.integers)
        before = None if own is None else constant(own)
        assert own is not None and before is not None
        after = array if grid is None else grid.whole(array).astype(before.dtype)
        if not np.array_equal(before, after):
            own.const_value = ir.Tensor(np.ascontiguousarray(after).reshape(before.shape), name=own.name)
    return copy
