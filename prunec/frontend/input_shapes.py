"""`--input-shape name=1,3,224,224`: dynamic input axes become static."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from prunec.diagnostics import PrunecError

_EXAMPLE = "write --input-shape input=1,3,224,224"


Shapes = Mapping[str, Sequence[int]]


def parse_input_shapes(texts: Sequence[str]) -> dict[str, list[int]]:
    """["x=1,3,224,224"] → {"x": [1, 3, 224, 224]}; "x=" is a scalar. Raises PC016."""
    sets = parse_shape_sets(texts)
    if len(sets) > 1:
        name = next(name for name in sets[0] if sets[0][name] is not sets[1][name])
        hint = "give each input once; only --target cpu and its like make a program for each of several shapes"
        raise PrunecError("PC016", f'"{name}" is given twice', where="--input-shape", hint=hint)
    return sets[0] if sets else {}


def parse_shape_sets(texts: Sequence[str]) -> list[dict[str, list[int]]]:
    """["x=1,3", "x=8,3", "m=3"] → [{"x": [1, 3], "m": [3]}, {"x": [8, 3], "m": [3]}]: all shapes to compile for.

    The nth mention of an input belongs to the nth shape; what is given once belongs to all. Raises PC016.
    """
    given: dict[str, list[list[int]]] = {}
    for text in texts:
        name, equals, dims = text.rpartition("=")
        if not equals or not name.strip():
            raise PrunecError("PC016", f'"{text}" is not NAME=DIM,DIM,…', where="--input-shape", hint=_EXAMPLE)
        own = [_dim(dim, text) for dim in dims.replace("x", ",").split(",")] if dims.strip() else []
        given.setdefault(name.strip(), []).append(own)
    most = max(map(len, given.values()), default=0)
    for name, shapes in given.items():
        if len(shapes) not in (1, most):
            message = f'"{name}" is given {len(shapes)} times and another input {most} times'
            hint = "give it once for each shape, or once for all"
            raise PrunecError("PC016", message, where="--input-shape", hint=hint)
    return [{name: shapes[min(i, len(shapes) - 1)] for name, shapes in given.items()} for i in range(most)]


def common_shapes(sets: Sequence[Shapes]) -> dict[str, list[int | None]]:
    """What several shapes agree on: None for an axis that stays dynamic. PC016 where they name different axes."""
    found: dict[str, list[int | None]] = {}
    for name in dict.fromkeys(name for each in sets for name in each):
        own = [each.get(name) for each in sets]
        lengths = {None if shape is None else len(shape) for shape in own}
        if len(lengths) != 1 or None in lengths:
            message = f'"{name}" needs as many axes in every one of the shapes'
            raise PrunecError("PC016", message, where="--input-shape", hint=_EXAMPLE)
        axes = zip(*(shape for shape in own if shape is not None), strict=True)
        found[name] = [axis[0] if len(set(axis)) == 1 else None for axis in axes]
    return found


def complete_shapes(model: ir.Model, shapes: Shapes) -> dict[str, list[int]]:
    """`shapes`, and those of other inputs as far as their axes have the same names. Raises PC017."""
    copy = ir.Model(ir.Graph([_twin(v) for v in real_inputs(model)], [], nodes=[]), ir_version=model.ir_version)
    apply_input_shapes(copy, shapes)
    found = {value.name or "": value.shape for value in copy.graph.inputs}
    return {
        name: [d for d in shape if isinstance(d, int)]
        for name, shape in found.items()
        if shape is not None and all(isinstance(d, int) for d in shape)
    }


def _twin(value: ir.Value) -> ir.Value:
    return ir.Value(name=value.name, shape=None if value.shape is None else ir.Shape(list(value.shape)))


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


def apply_input_shapes(model: ir.Model, shapes: Mapping[str, Sequence[int | None]]) -> None:
    """Set the shapes of graph inputs in place; None leaves an axis as it is.

    A dimension's name that becomes static does so everywhere. PC017.
    """
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


def _set_shape(value: ir.Value, dims: list[int | None], named: dict[str, int]) -> None:
    old = value.shape
    if old is not None:
        if len(old) != len(dims):
            _refuse(value, dims)
        for before, after in zip(old, dims, strict=True):
            if after is None:
                continue
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
    kept = [None] * len(dims) if old is None else list(old)
    value.shape = ir.Shape([before if after is None else after for before, after in zip(kept, dims, strict=True)])


def _refuse(value: ir.Value, dims: list[int | None]) -> None:
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
