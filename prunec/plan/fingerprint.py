"""A name for the structure of a canonical model and its groups.

Channel numbers in a plan mean something only in the very same analysis: same nodes, same tensors and shapes, same
groups. Weights are left out: folding them rounds differently from one machine to the next, and the source file has its
own hash.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
import onnx_ir as ir

from prunec.graph import Analysis
from prunec.graph.shapes import dims


def fingerprint(model: ir.Model, analysis: Analysis) -> str:
    """sha256 in hexadecimal."""
    nodes = [
        [n.name, n.domain, n.op_type, [v.name if v else None for v in n.inputs], [v.name for v in n.outputs]]
        for n in model.graph
    ]
    tensors = [[name, str(v.dtype), list(dims(v) or ())] for name, v in sorted(model.graph.initializers.items())]
    groups = [
        [g.id, g.size, g.pinned is None, [[m.tensor, m.node, m.axis, m.role] for m in g.members]]
        for g in analysis.groups
    ]
    digest = hashlib.sha256(json.dumps([nodes, tensors, groups], separators=(",", ":")).encode())
    for group in analysis.groups:
        for member in group.members:
            digest.update(np.array(member.length, "<i8").tobytes())
            digest.update(member.places.astype("<i8").tobytes())
            digest.update(member.channels.astype("<i8").tobytes())
    return digest.hexdigest()
