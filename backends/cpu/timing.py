"""What every layer takes, sparse and dense, as a share of what the processor can do. Needs no TVM."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Protocol

import numpy as np
import onnx_ir as ir

from prunec.backends.base import LayerTimes
from prunec.graph.cost import node_macs
from prunec.measure.results import LayerTiming
from prunec.passes.quantise.strip import dequantised
from prunec.passes.sparsify.views import Prunable, constants, prunable_layers
from prunec.plan.plan import LayerPlan

RUNS = 15
"""Of each model in turn; the best time of a layer counts, because whatever disturbs only adds."""


Profile = Callable[[], Iterable[tuple[str, int]]]
"""One run: the nodes of every step, with commas between, and its nanoseconds."""


class Profiled(Protocol):
    """A compiled model that says what its steps take."""

    def profile(self, feeds: Mapping[str, np.ndarray]) -> list[tuple[str, int]]:
        """One run: the nodes of every step, with commas between, and its nanoseconds."""


def time_layers(
    sparse: Profiled,
    dense: Profiled | None,
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
            for name, taken in node_times(() if compiled is None else compiled.profile(feeds)).items():
                best[name] = min(taken, best.get(name, taken))
    prunable = prunable_layers(dequantised(model))
    nodes = {node.name: node for node in model.graph}
    found = []
    for layer in layers:
        node = nodes.get(layer.node)
        if node is None or layer.node not in after:
            continue
        density = density_of(prunable.get(layer.node))
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


def node_times(steps: Iterable[tuple[str, int]]) -> Counter[str]:
    """Nanoseconds of every node in one run, all its steps together: a recurrent layer has several, for example."""
    found: Counter[str] = Counter()
    for names, taken in steps:
        for name in names.split(", "):
            found[name] += taken
    return found


def best_times(
    dense: Profile, sparse: Profile, wanted: Set[str], *, fewest: int, enough_s: float, most_s: float
) -> dict[str, LayerTimes]:
    """The best of several runs of both in turn, for the nodes that are `wanted`: whatever disturbs only adds time.

    `fewest` runs of each at least, for `enough_s` seconds, or `most_s` while some layer looks no faster with zeros.
    """
    before, after = ({} for _ in range(2))  # type: dict[str, int], dict[str, int]
    start, runs = time.perf_counter(), 0
    while runs < fewest or time.perf_counter() - start < (most_s if _in_doubt(before, after) else enough_s):
        runs += 1
        for profile, best in ((dense, before), (sparse, after)):
            taken = node_times(profile())
            best |= {node: min(taken[node], best.get(node, taken[node])) for node in wanted}
    return {node: LayerTimes(before[node] / 1e3, after[node] / 1e3) for node in before}


def _in_doubt(dense: Mapping[str, int], sparse: Mapping[str, int]) -> bool:
    return any(sparse[node] >= taken for node, taken in dense.items())


def density_of(layer: Prunable | None) -> float:
    """Of all weights of a layer: a recurrent one has two."""
    weights = [] if layer is None else constants(layer)
    size = sum(weight.size for weight in weights)
    return sum(int(np.count_nonzero(weight)) for weight in weights) / size if size else 1.0
