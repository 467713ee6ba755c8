"""What layers take in the engine that is here, dense and with zeros: V8 in Node, or wasmtime without it.

The dense model and each with zeros (by magnitude: only where they lie matters) are modules of their own and run in
turn. The best of several runs of each layer counts, with its fused epilogue; an engine compiles functions anew while
they run, so the first ones never do. Times are remembered by all they depend on, the engine among it.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir

from prunec.backends.base import LayerTimes
from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernel_table import made_up, read_times, time_keys, with_zeros
from prunec.backends.cpu.lower.program import Program
from prunec.backends.cpu.timing import Profiled, best_times
from prunec.backends.cross.lowered import bools, lowered
from prunec.backends.wasm.artifact import write_folder
from prunec.backends.wasm.engine import WasmModel
from prunec.backends.wasm.node import NodeModel, node
from prunec.cache import Cache
from prunec.passes.sparsify import LayerPattern

FEWEST, ENOUGH_S, MOST_S = 20, 1.5, 3.0
"""See `best_times`; so many runs that the engine has compiled what it will."""


def layer_times(
    model: ir.Model,
    levels: Sequence[Mapping[str, LayerPattern]],
    isa: Isa,
    *,
    about: str,
    shapes: Mapping[str, Sequence[int]],
    cache: Cache | None,
    progress: Callable[[int, int], None],
) -> list[Mapping[str, LayerTimes]]:
    """Times of the layers of a dense `model` at each of the `levels`, by node; without those that have no kernel.

    `about`: code and engine.

    Raises:
        PrunecError PC452, PC464: no code can be generated; PC453: no compiler; PC622: the engine refuses it.
    """
    found = list[Mapping[str, LayerTimes]]()
    with contextlib.ExitStack() as stack:
        before = lowered(model, isa, shapes)
        feeds = {name: made_up(tensor.shape, tensor.dtype) for name, tensor in before[1].inputs.items()}
        dense: Profiled | None = None
        for number, wanted in enumerate(levels):
            progress(number, len(levels))
            after = lowered(with_zeros(model, wanted), isa, shapes)
            keys = dict(time_keys(before[1], after[1], wanted, ("engine", about)))
            known = {node: cache.read(key) if cache is not None else None for node, key in keys.items()}
            own = {node: read_times(entry[0]["us"]) for node, entry in known.items() if entry is not None}
            if len(own) < len(keys):
                dense = dense or stack.enter_context(_running(*before, isa))
                with _running(*after, isa) as sparse:
                    profiles = partial(dense.profile, feeds), partial(sparse.profile, feeds)
                    own = best_times(*profiles, keys.keys(), fewest=FEWEST, enough_s=ENOUGH_S, most_s=MOST_S)
                for node, times in own.items():
                    if cache is not None:
                        cache.write(keys[node], {"us": np.array([times.dense_us, times.sparse_us])})
            found.append(own)
    return found


@contextlib.contextmanager
def _running(ready: ir.Model, program: Program, isa: Isa) -> Iterator[Profiled]:
    with tempfile.TemporaryDirectory(prefix="prunec-times-") as name:
        folder = write_folder(program, bools(ready), isa, Path(name), name="timed")
        with contextlib.closing(NodeModel(folder) if node() else WasmModel(folder)) as compiled:
            yield compiled
