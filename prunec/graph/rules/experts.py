"""ONNX Runtime's `MoE`: all experts of a feed-forward layer stacked in one node, with its own top-k routing.

(x [.., D], router [tokens, E], W1 [E, m·F, D], b1, W2 [E, D, F], b2, W3 [E, F, D], b3), m = 2 for interleaved SwiGLU.
The widths F are channels, the same ones in every expert, because the stack is a box. The experts themselves stay: which
of them a token goes to is decided by their rank. Nothing outside sees the hidden layer, so the masked reference masks
the columns of W2. Two layouts of the weights exist; the older one, W2 [E, F, D], is pinned.

Experts written out as products need no rule of their own, and whether whole ones may go is decided by their gate:

- a sigmoid per expert: the layer is a sum over experts of gate · output, a dead one adds nothing: exact (class A);
- a softmax over the experts: without one the gates of the others grow, which is the softmax with that logit at −∞, a
  statistic of those that are left (class C, pinned by the Softmax unless `Flow.experts`);
- top-k: the winners among those left are those of the masked logits too; TopK answers with positions, and whoever reads
  them is renumbered as well (`routing`; class C, pinned unless `Flow.experts` and where a reader cannot be).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunec.graph.flow import STATISTIC, Flow
from prunec.graph.rules.base import KeepsAttributes, attribute, given, outputs_untracked, rank
from prunec.graph.shapes import dims
from prunec.graph.weights import is_weight

_DATA, _ROUTER, _FIRST, _FIRST_BIAS, _SECOND, _SECOND_BIAS, _THIRD, _THIRD_BIAS = range(8)


class FusedExperts(KeepsAttributes):
    def couple(self, node: ir.Node, flow: Flow) -> None:
        for ids in flow.of(node.inputs[_ROUTER]):
            flow.pin(ids, STATISTIC, node, "MoE ranks the experts of a token")
        n = rank(node.inputs[_DATA])
        first, second = dims(node.inputs[_FIRST]), dims(node.inputs[_SECOND])
        width = None if second is None or len(second) != 3 else second[2]
        reason = self._unsupported(node, first, second)
        if reason is not None or n is None or not isinstance(width, int) or first is None or second is None:
            flow.pin_inputs(node, "PC101", reason or "the shapes of MoE are unknown")
            outputs_untracked(node, flow)
            return
        hidden, made = flow.fresh(width), flow.fresh(int(second[1] or 0))
        rows = np.repeat(hidden, int(first[1] or 0) // width)
        axes = flow.of(node.inputs[_DATA])
        flow.reduce(node, _DATA, n - 1, axes[-1], (_FIRST, 2))
        flow.reduce(node, _SECOND, 2, hidden)
        flow.use(node, _FIRST, [None, rows, axes[-1]], ["carrier", "producer", "consumer"])
        flow.use(node, _SECOND, [None, made, hidden], ["carrier", "producer", "consumer"])
        if given(node, _THIRD):
            flow.use(node, _THIRD, [None, hidden, axes[-1]], ["carrier", "producer", "consumer"])
        for index, ids in ((_FIRST_BIAS, rows), (_SECOND_BIAS, made), (_THIRD_BIAS, hidden)):
            if given(node, index):
                flow.use(node, index, [None, ids], "carrier")
        flow.set(node.outputs[0], [*axes[:-1], made])

    def _unsupported(self, node: ir.Node, first: object, second: object) -> str | None:
        weights = [i for i in range(_FIRST, len(node.inputs)) if given(node, i)]
        if not all(is_weight(node.inputs[i]) for i in weights):
            return "the weights of MoE are computed at run time"
        x = (dims(node.inputs[_DATA]) or (None,))[-1]
        fits = isinstance(first, tuple) and isinstance(second, tuple) and len(first) == len(second) == 3
        if not fits or first[2] != x or second[1] != x or first[1] not in (second[2], 2 * second[2]):  # type: ignore[index]
            return "MoE with weights that are laid out in another way"
        if first[1] != second[2] and int(attribute(node, "swiglu_fusion", 0)) != 1:  # type: ignore[index]
            return "MoE with gates that are not interleaved"
        return None
