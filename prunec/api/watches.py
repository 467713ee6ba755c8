"""What times candidates of a target while a plan is made: a stopwatch here, or a model of a machine elsewhere."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from prunec.api.opening import Opened, timed_sample
from prunec.api.options import PlanOptions
from prunec.api.saving import dense_file
from prunec.api.target_list import backend_for
from prunec.backends.base import Measuring, Modelling, Timeable
from prunec.frontend.calibration import Calibration
from prunec.frontend.input_shapes import complete_shapes
from prunec.measure.machine import describe_machine
from prunec.measure.modelled_shares import ModelledWatch
from prunec.measure.shares import Stopwatch, Watch


@contextmanager
def timed_dense(opened: Opened, options: PlanOptions) -> Iterator[Path]:
    """What times are compared with: the file for ONNX Runtime, or the dense model as the target compiles it.

    Raises:
        PrunecError PC440, PC45x, PC464: the target cannot build or run it here.
    """
    backend: object = backend_for(options.target, options.precision)
    if options.sparse_pattern() is None or not isinstance(backend, Timeable) or not backend.is_own_baseline:
        with dense_file(opened.source) as file:
            yield file
        return
    backend.check_timed(options.threads)
    with tempfile.TemporaryDirectory(prefix="prunec-") as folder:
        yield backend.write_timed(Path(folder), opened.canonical, {}, options.made_up_shapes or None)


def timed_machine(options: PlanOptions) -> str:
    """What times are those of: this processor, an engine on it, or a core elsewhere."""
    backend: object = backend_for(options.target, options.precision)
    return backend.machine() if isinstance(backend, Timeable) else describe_machine().cpu


def watch_for(
    backend: Timeable, dense: Path, opened: Opened, calibration: Calibration, options: PlanOptions, pattern: str
) -> Watch:
    """For candidates that `backend.write_timed` writes, beside the `dense` model of `timed_dense`."""
    if isinstance(backend, Modelling):
        return ModelledWatch(dense, _rest_us(backend, opened, options))
    assert isinstance(backend, Measuring)
    return Stopwatch(
        dense, timed_sample(calibration, opened.canonical, options.made_up_shapes or {}, options.seed),
        identity=f"{opened.source.sha256} {options.target} {pattern} {backend.provenance()}", threads=options.threads,
        seed=options.seed, cache=options.cache, kind=backend.kind,
        dense_kind=backend.kind if backend.is_own_baseline else "onnxruntime",
    )  # fmt: skip


def _rest_us(backend: Modelling, opened: Opened, options: PlanOptions) -> float:
    """Remembered by what it depends on."""
    shapes = options.made_up_shapes or None
    whole = {name: list(shape) for name, shape in complete_shapes(opened.canonical, shapes or {}).items()}
    about = ["rest 2", opened.source.sha256, backend.provenance(), whole]
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    entry = None if options.cache is None else options.cache.read(key)
    if entry is not None:
        return float(entry[0]["us"][0])
    found = backend.rest_us(opened.canonical, shapes)
    if options.cache is not None:
        options.cache.write(key, {"us": np.array([found])})
    return found
