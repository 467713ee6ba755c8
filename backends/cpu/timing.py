"""What every layer takes, sparse and dense, as a share of what the processor can do. Needs no TVM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from prunec.backends.cpu.compiled import CompiledModel
from prunec.graph.cost import node_macs
from prunec.graph.shapes import constant
from prunec.measure.results import LayerTiming
from prunec.plan.plan import LayerPlan

RUNS = 15
"""Of each model in turn; the best time of a layer counts, because whatever disturbs only adds."""


def time_layers(
    sparse: CompiledModel,
    dense: CompiledModel | None,
    model: ir.Model,
    layers: Sequence[LayerPlan],
    feeds: Mapping[str, np.ndarray],
    peak: float | None,
) -> tuple[LayerTiming, ...]:
    """The layers with a pattern, in the order of the plan, each with its fused epilogue.

    `model` is the pruned one as it was lowered, `peak` in GFLOP/s for the threads that both models run on; without
    one there are no shares of it. `gflops_nonzero` counts the multiply-adds of weights that are not zero.
    """
    after, before = ({} for _ in range(2))  # type: dict[str, int], dict[str, int]
    for _ in range(RUNS):
        for compiled, best in ((sparse, after), (dense, before)):
            for names, taken in () if compiled is None else compiled.profile(feeds):
                for name in names.split(", "):
                    best[name] = min(taken, best.get(name, taken))
    nodes = {node.name: node for node in model.graph}
    found = []
    for layer in layers:
        node = nodes.get(layer.node)
        if node is None or layer.node not in after:
            continue
        density = _density(node)
        gflops = 2 * node_macs(node) * density / max(after[layer.node], 1)
        found.append(
            LayerTiming(
                name=layer.node, pattern=layer.pattern, density=round(density, 6),
                dense_us=before[layer.node] / 1e3 if layer.node in before else None,
                sparse_us=after[layer.node] / 1e3, gflops_nonzero=gflops,
                peak_share=None if peak is None else gflops / peak, chosen="sparse" if density < 1 else "dense",
            )
        )  # fmt: skip
    return tuple(found)


def _density(node: ir.Node) -> float:
    weight = constant(node.inputs[1])
    return 1.0 if weight is None or not weight.size else np.count_nonzero(weight) / weight.size
