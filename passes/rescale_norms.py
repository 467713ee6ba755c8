"""Scale and bias of norms that lost channels, so that what they give stays what it was on average.

A norm over k of n channels divides by another deviation and subtracts another mean. With x from the dense model,

    v = γ(x − μ)/σ + β at the channels that are left,   z = (x − μ_k)/σ_k over those channels alone

the new scale and bias of every channel are the least-squares line of v on z over calibration data:

    γ' = Cov(v, z)/Var(z),     β' = E[v] − γ' E[z]

so that E[γ'z + β'] = E[v]; where σ_k and σ vary together, γ' is γ·√(E[σ_k²]/E[σ²]). They stay only if the error of the
model's outputs on held-out data falls. Norms written out in single operators keep their constants: in front of layers,
which is where they stand, refitting the layers does the same.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunec.backends.onnx.session import make_session, run
from prunec.graph.rules.base import attribute, given
from prunec.graph.rules.norm import REDUCIBLE
from prunec.graph.shapes import constant
from prunec.passes.compensate import CompensationRecord
from prunec.passes.compensate.constants import set_constant
from prunec.passes.compensate.pairs import Kept
from prunec.passes.held_out import held_out_error
from prunec.statistics.collect import CalibrationData

Double = npt.NDArray[np.float64]


def rescale_norms(
    dense: ir.Model, cut: ir.Model, kept: Kept, calibration: CalibrationData, *, threads: int = 1
) -> tuple[ir.Model, list[CompensationRecord]]:
    """New model with the new scales and biases if they help, and a record per norm."""
    sources = {node.name or "": node for node in dense.graph}
    model = cut.clone()
    lines = {
        node.name or "": _Line(sources[node.name or ""], mask)
        for node in model.graph
        if node.op_type in REDUCIBLE and (mask := _mask(kept, sources.get(node.name or ""))) is not None
    }
    if not lines:
        return cut, []
    session = make_session(dense, threads=threads, outputs=sorted({line.data for line in lines.values()}))
    for feeds in calibration.fit():
        found = run(session, feeds)
        for line in lines.values():
            line.add(found[line.data])
    for node in list(model.graph):
        if node.name in lines:
            scale, bias = lines[node.name].solve()
            set_constant(model.graph, node, 1, scale)
            if given(node, 2):
                set_constant(model.graph, node, 2, bias)
    before, after = (held_out_error(dense, m, calibration, threads) for m in (cut, model))
    if not after < before:
        return cut, [CompensationRecord(name, "none", 0.0, 0, before, before) for name in lines]
    return model, [CompensationRecord(name, "rescale", 0.0, line.count, before, after) for name, line in lines.items()]


def _mask(kept: Kept, node: ir.Node | None) -> np.ndarray | None:
    """bool [n]: the channels that are left of what a norm reads, or None where all are."""
    if node is None or not given(node, 1) or node.inputs[0] is None:
        return None
    return kept.masks(node.inputs[0].name or "", len(node.inputs[0].shape or ()))[-1]


class _Line:
    """Sums for the least-squares line of one norm, per channel that is left."""

    def __init__(self, node: ir.Node, mask: np.ndarray) -> None:
        value = node.inputs[0]
        assert value is not None
        self.data, self.mask, self.count = value.name or "", mask, 0
        self.centred = node.op_type == "LayerNormalization"
        self.has_bias = given(node, 2)
        self.epsilon = float(attribute(node, "epsilon", 1e-5))
        scale, bias = (constant(node.inputs[i]) if given(node, i) else None for i in (1, 2))
        assert scale is not None
        self.scale = scale.astype(np.float64)[mask]
        self.bias = np.zeros(int(mask.sum())) if bias is None else bias.astype(np.float64)[mask]
        self.sums: Double = np.zeros((4, int(mask.sum())))

    def add(self, x: np.ndarray) -> None:
        rows = x.reshape(-1, x.shape[-1]).astype(np.float64)
        v = self._normalised(rows)[:, self.mask] * self.scale + self.bias
        z = self._normalised(rows[:, self.mask])
        self.sums += [v.sum(0), z.sum(0), (v * z).sum(0), np.square(z).sum(0)]
        self.count += len(rows)

    def _normalised(self, rows: Double) -> Double:
        if self.centred:
            rows = rows - rows.mean(axis=1, keepdims=True)
        found: Double = rows / np.sqrt(np.square(rows).mean(axis=1, keepdims=True) + self.epsilon)
        return found

    def solve(self) -> tuple[Double, Double]:
        """γ' and β'; without a bias the line goes through zero. A channel that never varies keeps its scale."""
        v, z, vz, zz = self.sums / max(self.count, 1)
        if not self.has_bias:
            return np.where(zz > 0, vz / np.where(zz > 0, zz, 1), self.scale), self.bias
        variance = zz - z * z
        usable = variance > 1e-9 * np.maximum(zz, 1e-300)
        slope = np.where(usable, (vz - v * z) / np.where(usable, variance, 1), self.scale)
        return slope, v - slope * z
