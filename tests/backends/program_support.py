"""Compile a small model into a folder and compare it with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from prunec.backends.cpu.artifact import write_artifact
from prunec.backends.cpu.isa import Isa, host_isa
from prunec.backends.cpu.layout import LIBRARY, WEIGHTS
from prunec.backends.cpu.library import Model
from prunec.backends.cpu.lower.candidates import Choose, by_rule
from prunec.backends.cpu.lower.lowering import lower
from prunec.backends.cpu.lower.prepare import prepare
from prunec.backends.cpu.lower.program import Program
from prunec.backends.onnx.session import make_session, run
from prunec.verify.metrics import max_relative

TOLERANCE = 1e-5


def lowered(model: ir.Model, choose: Choose = by_rule, isa: Isa | None = None) -> Program:
    """The program of a model in which every node has generated code, for this machine unless told otherwise."""
    ready = prepare(model)
    program, refusals = lower(
        list(ready.graph), list(ready.graph.inputs), list(ready.graph.outputs), isa or host_isa(), choose
    )
    assert not refusals, [(r.node.op_type, r.reason) for r in refusals]
    return program


def compiled(model: ir.Model, folder: Path, *, threads: int = 1, choose: Choose = by_rule) -> Model:
    write_artifact([lowered(model, choose)], host_isa(), folder)
    return Model(folder / LIBRARY, folder / WEIGHTS, threads=threads)


def assert_equal(model: ir.Model, package: Model, feeds: dict[str, np.ndarray], tolerance: float = TOLERANCE) -> None:
    """Every output, relative to its range; integers and bools exactly."""
    wanted, found = run(make_session(model), feeds), package.run(feeds)
    assert list(found) == list(wanted)
    for name, want in wanted.items():
        got = found[name].view(np.bool_) if want.dtype == np.bool_ else found[name]
        assert got.shape == want.shape and got.dtype == want.dtype
        error = max_relative(want, got)
        assert error <= tolerance, f"{name}: {error:.1e}"
