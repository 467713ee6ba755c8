"""What layers take in generated code, dense and with zeros, on this machine: a plan asks before it prunes.

The dense model and the one with zeros (by magnitude: only where they lie matters) become two programs of one library
and run in turn; the best of several runs of each layer counts, with its fused epilogue. Times are remembered by all
they depend on: the kernels, their source, pattern and share, processor, instructions and threads.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import DTypeLike

from prunec.backends.base import LayerTimes
from prunec.backends.cpu.artifact import write_artifact
from prunec.backends.cpu.building import Shapes, split_for
from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.base import Kernel
from prunec.backends.cpu.layout import LIBRARY, WEIGHTS
from prunec.backends.cpu.library import Model
from prunec.backends.cpu.lower.program import Program
from prunec.backends.cpu.provenance import processor, sources
from prunec.backends.cpu.timing import best_times
from prunec.cache import Cache
from prunec.passes.sparsify import LayerPattern
from prunec.passes.sparsify.embeddings import Embedding
from prunec.passes.sparsify.rewriting import rewrite
from prunec.passes.sparsify.views import matrices, prunable_layers
from prunec.patterns.zeros import masked

Form = Callable[[ir.Model], ir.Model]
FEWEST, ENOUGH_S, MOST_S = 15, 0.3, 3.0
"""Runs of each program at least; seconds for all runs, and seconds while some layer looks no faster with zeros.

What disturbs only adds time, and on a busy machine two threads rarely run undisturbed.
"""


def layer_times(
    model: ir.Model,
    wanted: Mapping[str, LayerPattern],
    isa: Isa,
    *,
    threads: int = 1,
    shapes: Shapes | None = None,
    cache: Cache | None = None,
    form: Form = lambda model: model,
) -> dict[str, LayerTimes]:
    """Times of the layers of a dense `model` that would get a pattern, by node; without those that have no kernel.

    `form`: what is made of the dense model, and of the one with zeros, before they are lowered.

    Raises:
        PrunecError PC452, PC453, PC454: no code can be generated.
    """
    given = [] if shapes is None else [shapes]
    (_, (dense,)), (_, (sparse,)) = (split_for(form(each), isa, given) for each in (model, with_zeros(model, wanted)))
    found: dict[str, LayerTimes] = {}
    for before, after in zip(dense.parts, sparse.parts, strict=True):
        if before.program is None or after.program is None:
            continue
        about = (sources("kernel_table.py", "timing.py"), processor(), isa.name, threads)
        keys = dict(time_keys(before.program, after.program, wanted, about))
        known = {node: cache.read(key) if cache is not None else None for node, key in keys.items()}
        found |= {node: read_times(own[0]["us"]) for node, own in known.items() if own is not None}
        if None not in known.values():
            continue
        for node, times in _timed((before.program, after.program), keys.keys(), isa, threads).items():
            found[node] = times
            if cache is not None:
                cache.write(keys[node], {"us": np.array([times.dense_us, times.sparse_us])})
    return found


def between_us(
    model: ir.Model, layers: Collection[str], isa: Isa, *, threads: int = 1, shapes: Shapes | None = None
) -> float:
    """µs of one run of what is in the same step as none of the `layers`: conversions, pools, what has no weights.

    Raises:
        PrunecError PC452, PC453, PC454: no code can be generated.
    """
    _, (split,) = split_for(model, isa, [] if shapes is None else [shapes])
    own, found = frozenset(layers), 0.0
    for program in (part.program for part in split.parts):
        if program is None:
            continue
        with tempfile.TemporaryDirectory(prefix="prunec-times-") as name:
            write_artifact((program,), isa, Path(name))
            with Model(Path(name, LIBRARY), Path(name, WEIGHTS), threads=threads, takes_nan=True) as compiled:
                feeds = {info.name: made_up(info.shape, info.dtype) for info in compiled.inputs}
                least, start, runs = float("inf"), time.perf_counter(), 0
                while runs < FEWEST or time.perf_counter() - start < ENOUGH_S:
                    runs += 1
                    steps = compiled.profile(feeds)
                    least = min(least, sum(taken for names, taken in steps if own.isdisjoint(names.split(", "))))
        found += least / 1e3
    return found


def read_times(us: np.ndarray) -> LayerTimes:
    """As they are kept."""
    dense, sparse = (float(taken) for taken in us)
    return LayerTimes(dense, sparse)


def with_zeros(model: ir.Model, wanted: Mapping[str, LayerPattern]) -> ir.Model:
    """A copy whose layers have their patterns by magnitude; tables of embeddings stay, they run in no kernel."""
    copy = model.clone()
    layers = prunable_layers(copy)
    for node, own in wanted.items():
        layer = layers.get(node)
        if layer is None or isinstance(layer, Embedding):
            continue
        zeroed = [masked(m, own.pattern.project(np.abs(m), layout, own.level)) for m, layout in matrices(layer)]
        rewrite(copy.graph, layer, zeroed)
    return copy


def time_keys(
    dense: Program, sparse: Program, wanted: Mapping[str, LayerPattern], about: tuple[object, ...]
) -> Iterator[tuple[str, str]]:
    """What the times of a layer depend on, for every layer that both programs have kernels for.

    `about`: what does not come from the layer: code, machine, threads.
    """
    before, after = _kernels(dense), _kernels(sparse)
    for node, own in wanted.items():
        if node in before and node in after:
            yield node, repr(("layer times", *about, before[node], after[node], str(own.pattern), own.level))


def _kernels(program: Program) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for step in program.steps:
        if isinstance(step.call, Kernel):
            for node in step.nodes:
                found.setdefault(node, []).append(step.call.symbol())
    return found


def _timed(programs: tuple[Program, Program], wanted: Set[str], isa: Isa, threads: int) -> dict[str, LayerTimes]:
    with tempfile.TemporaryDirectory(prefix="prunec-times-") as name:
        write_artifact(programs, isa, Path(name))
        with Model(Path(name, LIBRARY), Path(name, WEIGHTS), threads=threads, takes_nan=True) as model:
            feeds = {info.name: made_up(info.shape, info.dtype) for info in model.inputs}
            dense, sparse = (partial(model.profile, feeds, number) for number in range(2))
            return best_times(dense, sparse, wanted, fewest=FEWEST, enough_s=ENOUGH_S, most_s=MOST_S)


def made_up(shape: Sequence[int], dtype: DTypeLike) -> np.ndarray:
    """Normal numbers; integers are zeros, which are an index of every table."""
    if np.dtype(dtype).kind == "f":
        return np.random.default_rng(0).standard_normal(shape).astype(dtype)
    return np.zeros(shape, dtype)
