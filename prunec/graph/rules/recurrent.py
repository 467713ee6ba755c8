"""LSTM, GRU, RNN: the hidden axis is one group over all gate blocks, the recurrence, peepholes and states.

With G gates (LSTM 4, GRU 3, RNN 1) and D directions: W [D, G·H, I], R [D, G·H, H], B [D, 2·G·H], P [D, 3·H]; hidden
unit j owns row j of every gate block. R's last axis consumes the units inside the loop, so that is where the masked
reference masks them. One tensor holds both directions: unit j of each goes together.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunec.graph.flow import Flow
from prunec.graph.rules.base import attribute, given, outputs_untracked, rank
from prunec.graph.rules.cut import Cut
from prunec.graph.weights import is_weight

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_INPUT, _WEIGHT, _RECURRENCE, _BIAS, _LENGTHS, _FIRST_STATE, _CELL_STATE, _PEEPHOLES = range(8)


class Recurrent:
    def couple(self, node: ir.Node, flow: Flow) -> None:
        weights = [i for i in (_WEIGHT, _RECURRENCE, _BIAS, _PEEPHOLES) if given(node, i)]
        if not all(is_weight(node.inputs[i]) for i in weights):
            flow.pin_inputs(node, "PC106", f"the weights of {node.op_type} are computed at run time")
            outputs_untracked(node, flow)
            return
        gates = _GATES[node.op_type]
        hidden = flow.fresh(int(attribute(node, "hidden_size")))
        data = flow.of(node.inputs[_INPUT])
        for ids in data[:2]:
            flow.pin(ids, "PC107", node, "time and batch of a recurrent layer cannot be cut")
        consumed = data[2] if len(data) > 2 else None
        rows = np.tile(hidden, gates)
        flow.reduce(node, _INPUT, 2, consumed, (_WEIGHT, 2))
        flow.reduce(node, _RECURRENCE, 2, hidden)
        flow.use(node, _WEIGHT, [None, rows, consumed], ["carrier", "producer", "consumer"])
        flow.use(node, _RECURRENCE, [None, rows, hidden], ["carrier", "carrier", "consumer"])
        if given(node, _BIAS):
            flow.use(node, _BIAS, [None, np.tile(hidden, 2 * gates)], "carrier")
        if given(node, _PEEPHOLES):
            flow.use(node, _PEEPHOLES, [None, np.tile(hidden, 3)], "carrier")
        self._states(node, flow, hidden)
        for output in node.outputs:
            n = rank(output) or 0
            flow.set(output, [None] * (n - 1) + [hidden] if n else [])

    def _states(self, node: ir.Node, flow: Flow, hidden: np.ndarray) -> None:
        for index in (_FIRST_STATE, _CELL_STATE):
            if not given(node, index):
                continue
            if is_weight(node.inputs[index]):
                flow.use(node, index, [None, None, hidden], "carrier")
                continue
            ids = flow.of(node.inputs[index])[-1]
            if ids is None:
                flow.pin(hidden, "PC103", node, "its initial state cannot be cut")
            else:
                flow.unite(hidden, ids)

    def cut(self, node: ir.Node, cut: Cut) -> None:
        for output in node.outputs:
            left = cut.count(output, (rank(output) or 1) - 1)
            if left is not None:
                node.attributes["hidden_size"] = ir.AttrInt64("hidden_size", left)
