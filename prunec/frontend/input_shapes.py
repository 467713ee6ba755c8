"""`--input-shape name=1,3,224,224`: dynamic input axes become static."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from prunec.diagnostics import PrunecError

_EXAMPLE = "write --input-shape input=1,3,224,224"


def parse_input_shapes(texts: Sequence[str]) -> dict[str, list[int]]:
    """["x=1,3,224,224"] → {"x": [1, 3, 224, 224]}; "x=" is a scalar. Raises PC016."""
    shapes: dict[str, list[int]] = {}
    for text in texts:
        name, equals, dims = text.rpartition("=")
        if not equals or not name.strip():
            raise PrunecError("PC016", f'"{text}" is not NAME=DIM,DIM,…', where="--input-shape", hint=_EXAMPLE)
        name = name.strip()
        if name in shapes:
            raise PrunecError("PC016", f'"{name}" is given twice', where="--input-shape", hint="give each input once")
        shapes[name] = [_dim(dim, text) for dim in dims.replace("x", ",").split(",")] if dims.strip() else []
    return shapes


def _dim(text: str, whole: str) -> int:
    try:
        dim = int(text)
    except ValueError:
        dim = 0
    if dim < 1:
        raise PrunecError(
            "PC016",
            f'"{text.strip()}" in "{whole}" is not a positive whole number',
            where="--input-shape",
            hint=_EXAMPLE,
        )
    return dim


def apply_input_shapes(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> None:
    """Set the shapes of graph inputs in place. A dimension's name that becomes static does so everywhere. PC017."""
    inputs = {value.name: value for value in real_inputs(model)}
    named: dict[str, int] = {}
    for name, dims in shapes.items():
        if name not in inputs:
            known = ", ".join(sorted(str(key) for key in inputs))
            raise PrunecError("PC017", f'the model has no input "{name}"', where=name, hint=f"its inputs are: {known}")
        _set_shape(inputs[name], list(dims), named)
    _substitute(model, named)


def real_inputs(model: ir.Model) -> list[ir.Value]:
    """Graph inputs that are not initializers."""
    return [value for value in model.graph.inputs if value.name not in model.graph.initializers]


def _set_shape(value: ir.Value, dims: list[int], named: dict[str, int]) -> None:
    old = value.shape
    if old is not None:
        if len(old) != len(dims):
            _refuse(value, dims)
        for before, after in zip(old, dims, strict=True):
            if isinstance(before, int) and before != after:
                _refuse(value, dims)
            name = before.value if isinstance(before, ir.SymbolicDim) else None
            if name is not None and named.setdefault(name, after) != after:
                raise PrunecError(
                    "PC017",
                    f'dimension "{name}" would be {named[name]} and {after}',
                    where=value.name,
                    hint="axes of the same name need the same size",
                )
    value.shape = ir.Shape(dims)


def _refuse(value: ir.Value, dims: list[int]) -> None:
    raise PrunecError(
        "PC017",
        f"{dims} does not fit the input's shape {value.shape}",
        where=value.name,
        hint="only dynamic axes can be set; static ones must be repeated as they are",
    )


def _substitute(model: ir.Model, named: Mapping[str, int]) -> None:
    """Graph inputs and outputs use the new sizes; stale shapes in between are dropped, to be inferred again."""
    for graph in model.graphs():
        for node in graph:
            for value in node.outputs:
                value.shape = _substituted(value.shape, named) if value.is_graph_output() else None
    for value in [*model.graph.inputs, *model.graph.outputs]:
        value.shape = _substituted(value.shape, named)


def _substituted(shape: ir.Shape | None, named: Mapping[str, int]) -> ir.Shape | None:
    if shape is None:
        return None
    return ir.Shape([named.get(d.value or "", d) if isinstance(d, ir.SymbolicDim) else d for d in shape])
