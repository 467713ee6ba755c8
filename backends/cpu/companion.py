"""What a compiled model is timed against: the dense model in the same generated code, whole and layer by layer."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from prunec.backends.cpu.building import build
from prunec.backends.cpu.compiled import CompiledModel
from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.peak import peak_gflops
from prunec.backends.cpu.timing import time_layers
from prunec.backends.cpu.tuning import Tuning
from prunec.measure.contender import OWN, OWN_DENSE, Contender
from prunec.measure.results import LayerTiming
from prunec.plan.plan import LayerPlan


@dataclass(frozen=True)
class Companion:
    """The dense model's files lie in `scratch`, which has to live while the contenders run."""

    contenders: tuple[Contender, ...]
    layers: tuple[LayerTiming, ...]
    scratch: tempfile.TemporaryDirectory[str]


def peak_of(ready: ir.Model, isa: Isa, threads: int) -> float | None:
    """GFLOP/s that layers may reach at most; None for a model with int8 layers, of which that is no limit."""
    is_float = not any(node.op_type == "DequantizeLinear" for node in ready.graph)
    return peak_gflops(isa, threads) if is_float else None


def beside(
    folder: Path,
    ready: ir.Model,
    dense: ir.Model,
    layers: Sequence[LayerPlan],
    feeds: Mapping[str, np.ndarray],
    isa: Isa,
    threads: int,
    tuning: Tuning | None = None,
) -> Companion:
    """Compile `dense` beside the compiled model in `folder`, tuned like it, and time the layers of both."""
    scratch = tempfile.TemporaryDirectory(prefix="prunec-dense-")
    shapes = {name: array.shape for name, array in feeds.items()}
    other = build(dense, isa, Path(scratch.name), [shapes], tuning).folder
    ours, theirs = CompiledModel(folder, threads=threads), CompiledModel(other, threads=threads)
    timed = time_layers(ours, theirs, ready, layers, feeds, peak_of(ready, isa, threads)) if layers else ()
    ours.close()
    theirs.close()
    contenders = (Contender(OWN, folder, "cpu"), Contender(OWN_DENSE, other, "cpu"))
    return Companion(contenders, timed, scratch)
