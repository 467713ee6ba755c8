"""Does the finished model have the patterns? Counted in the bytes of its constants, whoever wrote them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from prunec.passes.sparsify.sparsifier import LayerPattern
from prunec.passes.sparsify.views import constants, matrices, prunable_layers, refusal
from prunec.patterns import Proof


def prove_patterns(model: ir.Model, layers: Mapping[str, LayerPattern]) -> dict[str, Proof]:
    """By node name. A layer that is not there, or has a zero with a minus sign, does not pass."""
    found = prunable_layers(model)
    proofs = {}
    for name, wanted in layers.items():
        layer = found.get(name)
        if layer is None or refusal(layer, wanted.pattern) is not None:
            proofs[name] = Proof(wanted.pattern.name, wanted.level, 0, 0, 0.0, False)
            continue
        own = matrices(layer)
        parts = [wanted.pattern.check(matrix, layout, wanted.level) for matrix, layout in own]
        is_clean = not any((np.signbit(raw) & (raw == 0)).any() for raw in constants(layer))
        proofs[name] = Proof(
            pattern=wanted.pattern.name,
            level=wanted.level,
            units=sum(part.units for part in parts),
            valid=sum(part.valid for part in parts),
            zeros=float(np.average([part.zeros for part in parts], weights=[matrix.size for matrix, _ in own])),
            passed=is_clean and all(part.passed for part in parts),
        )
    return proofs
