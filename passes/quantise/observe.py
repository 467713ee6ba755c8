"""Histograms of values inside a model, from batches of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import onnx_ir as ir

from prunec.backends.onnx.session import make_session, run
from prunec.backends.onnx.values import in_parts
from prunec.diagnostics import PrunecError
from prunec.passes.quantise.histogram import Histogram

Feeds = dict[str, np.ndarray]


def observe(
    model: ir.Model, names: Sequence[str], batches: Callable[[], Iterable[Feeds]], *, seed: int, threads: int
) -> dict[str, Histogram]:
    """One histogram for each named value over all batches; values of infinite size are refused.

    Raises:
        PrunecError PC480: a value is infinite or no number.
    """
    found = {name: Histogram() for name in names}
    rng = np.random.default_rng(seed)
    inputs = {str(value.name) for value in model.graph.inputs}

    def count(name: str, array: np.ndarray) -> None:
        if not found[name].add(array, rng):
            hint = "give inputs as the model sees them with --calib"
            raise PrunecError(
                "PC480", "a value that needs a range for 8 bits is infinite or NaN", where=name, hint=hint
            )

    for number, part in enumerate(in_parts(model, [name for name in names if name not in inputs])):
        session = make_session(model, threads=threads, outputs=part) if part else None
        for feeds in batches():
            for name in inputs & found.keys() if number == 0 else ():
                count(name, feeds[name])
            for name, array in run(session, feeds).items() if session is not None else ():
                count(name, array)
    return found
