"""What every layer takes, sparse and dense, as a share of what the processor can do."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from prunec.backends.cpu.compiled import CompiledModel
from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.compiler import Callable
from prunec.backends.cpu.kernels.peak import Peak
from prunec.graph.cost import node_macs
from prunec.graph.shapes import constant
from prunec.measure.results import LayerTiming
from prunec.plan.plan import LayerPlan

RUNS = 15
"""Of each model in turn; the best time of a layer counts, because whatever disturbs only adds."""
_ROUNDS = 20_000


def peak_gflops(isa: Isa) -> float:
    """Multiply-adds in registers on one thread, best of several runs."""
    kernel = Peak(_ROUNDS)
    function = Callable(kernel, isa)
    arguments = function.prepare(np.array([0.999, 1e-3], np.float32), np.zeros(1, np.float32))
    best = float("inf")
    for _ in range(RUNS):
        start = time.thread_time()
        function.run(arguments)
        best = min(best, time.thread_time() - start)
    return kernel.flops(isa) / best / 1e9


def time_layers(
    sparse: CompiledModel,
    dense: CompiledModel,
    model: ir.Model,
    layers: Sequence[LayerPlan],
    feeds: Mapping[str, np.ndarray],
    isa: Isa,
) -> tuple[LayerTiming, ...]:
    """The layers with a pattern, in the order of the plan, each with its fused epilogue. One thread for `peak_share`.

    `model` is the pruned one as it was lowered. `gflops_nonzero` counts the multiply-adds of weights that are not zero.
    """
    after, before = ({} for _ in range(2))  # type: dict[str, int], dict[str, int]
    for _ in range(RUNS):
        for compiled, best in ((sparse, after), (dense, before)):
            for names, taken in compiled.profile(feeds):
                for name in names.split(", "):
                    best[name] = min(taken, best.get(name, taken))
    nodes = {node.name: node for node in model.graph}
    peak = peak_gflops(isa)
    found = []
    for layer in layers:
        node = nodes.get(layer.node)
        if node is None or layer.node not in after or layer.node not in before:
            continue
        density = _density(node)
        gflops = 2 * node_macs(node) * density / max(after[layer.node], 1)
        found.append(
            LayerTiming(
                name=layer.node, pattern=layer.pattern, density=round(density, 6),
                dense_us=before[layer.node] / 1e3, sparse_us=after[layer.node] / 1e3, gflops_nonzero=gflops,
                peak_share=gflops / peak, chosen="sparse" if density < 1 else "dense",
            )
        )  # fmt: skip
    return tuple(found)


def _density(node: ir.Node) -> float:
    weight = constant(node.inputs[1])
    return 1.0 if weight is None or not weight.size else np.count_nonzero(weight) / weight.size
