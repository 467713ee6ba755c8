"""The pruned graph as a `torch.export` program: what Torch-TensorRT and PyTorch read."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from prunec.backends.base import Feeds, Range
from prunec.diagnostics import PrunecError
from prunec.frontend.input_shapes import real_inputs
from prunec.graph.shapes import constant, dims
from prunec.torch.from_ir import names, to_graph_module


def export(model: ir.Model, feeds: Feeds, ranges: Mapping[str, Range]) -> Any:
    """The program, traced with `feeds`; dynamic axes that share a symbol share a dimension, within its range.

    Raises:
        PrunecError PC040: operators without a torch function; PC442: torch cannot keep an axis dynamic.
    """
    module = to_graph_module(model)
    values = real_inputs(model)
    arguments = tuple(torch.from_numpy(np.ascontiguousarray(feeds[str(value.name)])) for value in values)
    shapes = tuple(_dynamic(value, ranges) for value in values)
    try:
        program = torch.export.export(module, arguments, dynamic_shapes=_one_for_each(shapes))
    except Exception as reason:  # noqa: BLE001  (torch.export raises what its tracers raise)
        said = next((line for line in str(reason).splitlines() if line.strip()), type(reason).__name__)
        hint = "make the shapes static with --input-shape"
        raise PrunecError(
            "PC442", f"torch.export refuses the model: {said[:300]}", where="--target", hint=hint
        ) from None
    program.graph_module.meta["prunec_names"] = names(module)
    return program


def to_bytes(program: Any) -> bytes:
    """The .pt2 file. torch writes no times into it."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def parameter_names(program: Any) -> dict[str, str]:
    """Initializer of the ONNX graph → parameter of the program."""
    return {initializer: name for name, initializer in program.graph_module.meta["prunec_names"].items()}


def differing(program: Any, model: ir.Model, tensors: Mapping[str, str]) -> list[str]:
    """Layers (→ initializer) whose parameter does not have the initializer's bytes."""
    own, state, initializers = parameter_names(program), program.state_dict, model.graph.initializers
    found = []
    for layer, tensor in tensors.items():
        array, name = constant(initializers.get(tensor)), own.get(tensor)
        parameter = None if name is None else state.get(name)
        if array is None or parameter is None or parameter.detach().numpy().tobytes() != array.tobytes():
            found.append(layer)
    return found


def run(program: Any, feeds: Feeds, model: ir.Model) -> dict[str, np.ndarray]:
    """Outputs by the names of the ONNX graph."""
    arguments = [torch.from_numpy(np.ascontiguousarray(feeds[str(value.name)])) for value in real_inputs(model)]
    with torch.no_grad():
        answer = program.module(check_guards=False)(*arguments)
    answers = answer if isinstance(answer, tuple | list) else (answer,)
    return {str(v.name): a.numpy() for v, a in zip(model.graph.outputs, answers, strict=True)}


def _dynamic(value: ir.Value, ranges: Mapping[str, Range]) -> dict[int, Any] | None:
    given = ranges.get(str(value.name))
    if given is None:
        return None
    shape = dims(value) or ()
    found: dict[int, Any] = {}
    for axis, (least, most) in enumerate(zip(given[0], given[2], strict=True)):
        symbol = shape[axis] if axis < len(shape) else None
        if not isinstance(symbol, int) and least < most:
            found[axis] = (str(symbol or f"{value.name}_{axis}"), least, most)
    return found or None


def _one_for_each(shapes: tuple[dict[int, Any] | None, ...]) -> Any:
    """Symbols as `torch.export.Dim`, one for each name; None where all is static."""
    if not any(shapes):
        return None
    symbols: dict[str, Any] = {}
    found = []
    for shape in shapes:
        axes = {}
        for axis, (name, least, most) in (shape or {}).items():
            safe = "".join(c if c.isalnum() else "_" for c in name)
            safe = safe if safe[:1].isalpha() else f"d{safe}"
            symbols.setdefault(safe, torch.export.Dim(safe, min=least, max=most))
            axes[axis] = symbols[safe]
        found.append(axes or None)
    return tuple(found)
