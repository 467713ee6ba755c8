"""The first steps that most commands share: a file, its canonical model, its groups."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from prunec.diagnostics import Diagnostic
from prunec.frontend.onnx import Source, load
from prunec.graph import Analysis, analyse
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
