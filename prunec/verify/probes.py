"""Where to look when a model's outputs do not show what was cut.

A detector that finds nothing on random inputs has empty outputs, and a classifier that answers a label may answer the
same one: comparing those proves nothing. Then the outputs of the consumers are compared: of each cut group the last
node that sums over its channels, at the positions that are alive in both models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from prunec.graph import Analysis
from prunec.verify.culprit import cut_groups


def probes(model: ir.Model, analysis: Analysis, alive: np.ndarray) -> list[str]:
    """Names of the values to compare, at most one per cut group."""
    outputs = {node.name or "": node.outputs[0].name or "" for node in model.graph}
    found: dict[str, None] = {}
    for group in cut_groups(analysis, alive):
        dead = group.channels[~alive[group.channels]]
        consumers = [c.node for c in analysis.consumers if np.isin(c.channels, dead).any()]
        if consumers:
            found[outputs[consumers[-1]]] = None
    return list(found)


def with_outputs(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """A copy of the model whose outputs are the values called `names`."""
    copy = model.clone()
    values = {value.name: value for node in copy.graph for value in node.outputs}
    copy.graph.outputs[:] = [values[name] for name in names]
    return copy


def at_alive(values: Mapping[str, np.ndarray], analysis: Analysis, alive: np.ndarray) -> dict[str, np.ndarray]:
    """The positions of the dense model's values that a cut leaves."""
    result = {}
    for name, array in values.items():
        for axis, ids in enumerate(analysis.value_axes.get(name, ())):
            if ids is not None and not alive[ids].all():
                array = np.compress(alive[ids], array, axis=axis)
        result[name] = array
    return result
