"""Does the finished model have the patterns? Counted in the bytes of its constants, whoever wrote them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from prunec.graph.shapes import constant
from prunec.passes.compensate.find import find_layers
from prunec.passes.compensate.layers import Layer
from prunec.passes.sparsify.sparsifier import LayerPattern
from prunec.patterns import Layout, Proof


def prove_patterns(model: ir.Model, layers: Mapping[str, LayerPattern]) -> dict[str, Proof]:
    """By node name. A layer that is not there, or has a zero with a minus sign, does not pass."""
    found = {layer.name: layer for layer in find_layers(model)[0] if isinstance(layer, Layer)}
    proofs = {}
    for name, wanted in layers.items():
        layer = found.get(name)
        if layer is None:
            proofs[name] = Proof(wanted.pattern.name, wanted.level, 0, 0, 0.0, False)
            continue
        matrix = layer.matrix()
        groups, outputs, positions, channels = matrix.shape
        flat = matrix.reshape(groups, outputs, positions * channels)
        parts = [wanted.pattern.check(w, Layout(positions, channels), wanted.level) for w in flat]
        raw = constant(layer.node.inputs[layer.weight_index])
        assert raw is not None
        is_clean = not (np.signbit(raw) & (raw == 0)).any()
        proofs[name] = Proof(
            pattern=wanted.pattern.name,
            level=wanted.level,
            units=sum(part.units for part in parts),
            valid=sum(part.valid for part in parts),
            zeros=float(np.mean([part.zeros for part in parts])),
            passed=is_clean and all(part.passed for part in parts),
        )
    return proofs
