"""What a module is timed against: the dense model in the same kernels, whole and layer by layer, engine by engine."""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from prunec.backends.cpu.isa import RELAXED_WASM, WASM
from prunec.backends.cpu.lower.prepare import prepare
from prunec.backends.cpu.timing import time_layers
from prunec.backends.wasm.node import NodeModel, node
from prunec.backends.wasm.spec import WasmSpec
from prunec.frontend.calibration import open_calibration
from prunec.measure.contender import OWN, OWN_DENSE, Contender
from prunec.measure.results import LayerTiming
from prunec.plan.plan import LayerPlan

IN_WASMTIME = "_wasmtime"
"""End of the names of contenders that run there beside those in V8."""


@dataclass(frozen=True)
class Timed:
    """The dense model's files lie in `scratch`, which has to live while the contenders run."""

    contenders: tuple[Contender, ...]
    layers: tuple[LayerTiming, ...]
    feeds: Mapping[str, np.ndarray]
    scratch: tempfile.TemporaryDirectory[str] | None


def beside(
    folder: Path,
    model: ir.Model,
    dense: ir.Model | Path | None,
    layers: Sequence[LayerPlan],
    feeds: Mapping[str, np.ndarray] | int,
    *,
    everywhere: bool = True,
) -> Timed:
    """Contenders for V8 where Node is here, and for wasmtime (`everywhere`, or if it is all there is).

    With `dense` that model too where the code generator is here, or the folder of its module. `feeds`, or a seed.
    """
    spec = WasmSpec.read(folder)
    shapes = {tensor.name: tensor.shape for tensor in spec.inputs}
    ready = prepare(model, shapes)
    if isinstance(feeds, int):
        feeds = next(iter(open_calibration(None, ready, samples=2, seed=feeds).held_out()))
    isa = RELAXED_WASM if spec.simd == "relaxed" else WASM
    scratch, other = None, dense if isinstance(dense, Path) else None
    if isinstance(dense, ir.Model) and importlib.util.find_spec("tvm") is not None:
        from prunec.backends.wasm.building import build

        scratch = tempfile.TemporaryDirectory(prefix="prunec-dense-")
        other = build(dense, isa, Path(scratch.name), shapes, name="dense", placement=spec.weights).folder
    modules = {OWN: folder, OWN_DENSE: other}
    engines = (
        {"": "wasmtime"} if node() is None else {"": "wasm-node", **({IN_WASMTIME: "wasmtime"} if everywhere else {})}
    )
    contenders = tuple(
        Contender(f"{name}{end}", path, kind)
        for end, kind in engines.items()
        for name, path in modules.items()
        if path is not None
    )
    return Timed(contenders, _layers(folder, other, ready, layers, feeds), feeds, scratch)


def _layers(
    sparse: Path, dense: Path | None, ready: ir.Model, layers: Sequence[LayerPlan], feeds: Mapping[str, np.ndarray]
) -> tuple[LayerTiming, ...]:
    """What every layer takes in V8; nothing without Node."""
    if node() is None or not layers:
        return ()
    with NodeModel(sparse) as ours, contextlib.ExitStack() as stack:
        theirs = None if dense is None else stack.enter_context(NodeModel(dense))
        return time_layers(ours, theirs, ready, layers, feeds, None)
