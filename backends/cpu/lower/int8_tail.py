"""What follows an int8 layer and is computed in its epilogue: clips, a residual, and the quantiser behind them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from prunec.backends.cpu.lower.held import Grid, Held
from prunec.backends.cpu.lower.quantisers import can_hold, grid_of
from prunec.backends.cpu.lower.state import State, shape_of
from prunec.graph.shapes import constant


@dataclass(frozen=True)
class Inner:
    grid: Grid
    low: float
    high: float


@dataclass(frozen=True)
class Tail:
    """sum → + `added` → limits → grid → + residual → limits → grid.

    Computed by `nodes`; `output` is what the last of them gives. `grid`: None where that is float32. `inner`: the grid
    that the sum is rounded to before the residual is added, with limits of its own, or None. `is_residual_first`: of
    the addition's inputs.
    """

    output: ir.Value
    nodes: tuple[ir.Node, ...] = ()
    added: np.ndarray | None = None
    grid: Grid | None = None
    low: float = -math.inf
    high: float = math.inf
    residual: Held | None = None
    is_residual_first: bool = False
    inner: Inner | None = None


def tail_of(state: State, layer: ir.Node, channels: int) -> Tail:
    """As much as the epilogue of an int8 kernel takes."""
    walk = _Walk(state, Tail(layer.outputs[0]))
    if layer.op_type == "MatMul":
        walk.add_vector(channels)
    walk.clip()
    plain = walk.found
    if walk.add_residual():
        walk.clip()
        return walk.found if walk.quantise() and plain.low == -math.inf and plain.high == math.inf else plain
    if not walk.quantise():
        return walk.found
    quantised = walk.found
    if walk.dequantise() and walk.add_residual():
        walk.found = replace(
            walk.found, grid=None, low=-math.inf, high=math.inf,
            inner=Inner(quantised.grid or (1.0, 0), quantised.low, quantised.high),
        )  # fmt: skip
        walk.clip()
        if walk.quantise():
            return walk.found
    return quantised


@dataclass
class _Walk:
    """Follows a value from reader to reader, as long as it has one."""

    state: State
    found: Tail

    def clip(self) -> None:
        """Take in Relu and Clip."""
        while (node := self._reader("Relu", "Clip")) is not None:
            limits = (0.0, math.inf) if node.op_type == "Relu" else _limits(node)
            if limits is None:
                return
            low, high = max(self.found.low, limits[0]), min(max(self.found.high, limits[0]), limits[1])
            self._take(node, low=min(low, high), high=high)

    def add_vector(self, channels: int) -> None:
        """Take in an addition of one number per channel."""
        node = self._reader("Add")
        if node is None:
            return
        array = constant(self._other(node))
        if array is not None and array.dtype == np.float32 and array.size == array.shape[-1] == channels:
            self._take(node, added=array.reshape(-1))

    def add_residual(self) -> bool:
        """Take in an addition of what is there in 8 bits."""
        node = self._reader("Add")
        other = None if node is None else self._other(node)
        held = None if other is None else self.state.held.get(other.name or "")
        if node is None or held is None or held.shape != shape_of(self.found.output):
            return False
        self._take(node, residual=held, is_residual_first=node.inputs[0] is other)
        return True

    def quantise(self) -> bool:
        node = self._reader("QuantizeLinear")
        if node is None or not can_hold(self.state, node):
            return False
        self._take(node, grid=grid_of(node))
        return True

    def dequantise(self) -> bool:
        node = self._reader("DequantizeLinear")
        if node is None or self.found.grid is None or grid_of(node) != self.found.grid:
            return False
        self._take(node)
        return True

    def _take(self, node: ir.Node, **changes: object) -> None:
        value = node.outputs[0]
        self.found = replace(self.found, output=value, nodes=(*self.found.nodes, node), **changes)  # type: ignore[arg-type]

    def _reader(self, *kinds: str) -> ir.Node | None:
        """The node that alone reads the value, if it is one of these."""
        uses = list(self.found.output.uses())
        if len(uses) != 1 or self.found.output.is_graph_output():
            return None
        node = uses[0].node
        is_first = uses[0].idx == 0 or node.op_type == "Add"
        return node if node.op_type in kinds and node.domain in ("", "ai.onnx") and is_first else None

    def _other(self, add: ir.Node) -> ir.Value | None:
        return next((value for value in add.inputs if value is not self.found.output), None)


def _limits(clip: ir.Node) -> tuple[float, float] | None:
    found = []
    for index, default in ((1, -math.inf), (2, math.inf)):
        value = clip.inputs[index] if len(clip.inputs) > index else None
        array = None if value is None else constant(value)
        if value is not None and (array is None or array.size != 1):
            return None
        found.append(default if array is None else float(array.reshape(-1)[0]))
    return found[0], found[1]
