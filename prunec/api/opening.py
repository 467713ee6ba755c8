"""The first steps that most commands share: a file, its canonical model, its groups."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunec.diagnostics import Diagnostic
from prunec.frontend.calibration import Calibration
from prunec.frontend.onnx import Source, load
from prunec.graph import Analysis, analyse
from prunec.graph.shapes import dims
from prunec.passes.canonicalise import canonicalise

InputShapes = Mapping[str, Sequence[int]]
PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Opened:
    """A model as it was read, in canonical form, and analysed."""

    source: Source
    canonical: ir.Model
    analysis: Analysis
    warnings: tuple[Diagnostic, ...] = ()


def open_model(path: PathLike, input_shapes: InputShapes | None = None) -> Opened:
    """Read, canonicalise and analyse. Raises `PrunecError` PC0xx and PC1xx."""
    source = load(path, input_shapes=input_shapes)
    canonical = canonicalise(source.model)
    return Opened(source, canonical, analyse(canonical), tuple(source.warnings))


def one_sample(calibration: Calibration, model: ir.Model) -> dict[str, np.ndarray]:
    """One input: the first held-out batch, cut down to one sample where the batch axis is dynamic."""
    feeds = next(iter(calibration.held_out()))
    free = {str(v.name) for v in model.graph.inputs if (shape := dims(v)) and not isinstance(shape[0], int)}
    return {name: array[:1] if name in free else array for name, array in feeds.items()}
