"""The first steps that most commands share: a file or a torch module, its canonical model, its groups."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx_ir as ir

from prunec.diagnostics import Diagnostic, PrunecError
from prunec.frontend.calibration import Calibration, open_calibration
from prunec.frontend.input_shapes import apply_input_shapes
from prunec.frontend.onnx import Source, load
from prunec.frontend.torch_extra import is_module
from prunec.graph import Analysis, analyse
from prunec.graph.shapes import dims
from prunec.graph.stored import store_weights
from prunec.passes.canonicalise import canonicalise
from prunec.passes.quantise.strip import Stripped, float_twin

if TYPE_CHECKING:
    import torch

InputShapes = Mapping[str, Sequence[int | None]]
"""By input; None is an axis that stays as it is."""
PathLike = str | os.PathLike[str]
Model: TypeAlias = "str | os.PathLike[str] | torch.nn.Module"
"""An ONNX file, or a torch module that comes with example inputs."""


@dataclass(frozen=True)
class Opened:
    """A model as it was read, in canonical form, and analysed.

    `stripped`: of a model that was quantised (static QDQ), its float twin, which `canonical` is made of.
    """

    source: Source
    canonical: ir.Model
    analysis: Analysis
    warnings: tuple[Diagnostic, ...] = ()
    stripped: Stripped | None = None

    @property
    def unrounded(self) -> ir.Model:
        """What the canonical model has to equal."""
        return self.source.model if self.stripped is None else self.stripped.model


def open_model(
    model: Model,
    input_shapes: InputShapes | None = None,
    *,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
) -> Opened:
    """Read or trace, canonicalise and analyse. Raises `PrunecError` PC0xx and PC1xx."""
    return open_source(read_source(model, input_shapes, example_inputs=example_inputs, dynamic_shapes=dynamic_shapes))


def open_source(source: Source) -> Opened:
    """Canonicalise and analyse what was read."""
    stripped = float_twin(source.model)
    canonical = canonicalise(source.model if stripped is None else stripped.model)
    if source.is_file:  # the weights of a torch module are held by the module anyway
        store_weights(canonical)
    return Opened(source, canonical, analyse(canonical), tuple(source.warnings), stripped)


def read_source(
    model: Model,
    input_shapes: InputShapes | None = None,
    *,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
) -> Source:
    """An ONNX file by its name, a torch module through its example inputs. PC034 for anything else."""
    if is_module(model):
        from prunec.frontend.torch import load_module

        return load_module(model, example_inputs, dynamic_shapes=dynamic_shapes, input_shapes=input_shapes)
    if not isinstance(model, str | os.PathLike):
        hint = "pass the name of an ONNX file, or a torch.nn.Module with example_inputs"
        raise PrunecError("PC034", f"a {type(model).__name__} is no model", where="model", hint=hint)
    if example_inputs is not None or dynamic_shapes is not None:
        hint = "an ONNX file has its inputs written down; to make dynamic axes static pass input_shapes"
        raise PrunecError("PC034", "example_inputs go with a torch module, not a file", where=str(model), hint=hint)
    return load(model, input_shapes=input_shapes)


def stem(model: Model) -> str:
    """What to name things after: the file without its suffix, or the module's class."""
    return Path(model).stem if isinstance(model, str | os.PathLike) else type(model).__name__


def sample_of(model: ir.Model, shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, np.ndarray]:
    """One made-up input with these shapes, where they are given."""
    static = model.clone()
    apply_input_shapes(static, shapes)
    return one_sample(open_calibration(None, static, samples=2, seed=seed), static)


def one_sample(calibration: Calibration, model: ir.Model) -> dict[str, np.ndarray]:
    """One input: the first held-out batch, cut down to one sample where the batch axis is dynamic."""
    feeds = next(iter(calibration.held_out()))
    free = {str(v.name) for v in model.graph.inputs if (shape := dims(v)) and not isinstance(shape[0], int)}
    return {name: array[:1] if name in free else array for name, array in feeds.items()}


def timed_sample(
    calibration: Calibration, model: ir.Model, shapes: Mapping[str, Sequence[int]], seed: int
) -> dict[str, np.ndarray]:
    """What runs where times are taken: a sample of the data, made up where `shapes` are others than it has."""
    sample = one_sample(calibration, model)
    if all(sample[name].shape == tuple(shape) for name, shape in shapes.items()):
        return sample
    return sample_of(model, shapes, seed)
