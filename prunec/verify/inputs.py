"""Seeded random inputs for a model, small where its shape is free.

Floats are standard normal; integers that index a table stay inside it, other integers are 0 or 1. A dynamic leading
axis gets 2, so that a batch baked into a reshape shows; other dynamic axes try the sizes of `SIZES` in turn, for a
network that halves its input five times refuses small ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import onnx_ir as ir

from prunec.diagnostics import PrunecError
from prunec.graph.shapes import dims, length

Feeds = dict[str, np.ndarray]
Run = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]

SIZES = (8, 32, 64, 224)
_THROUGH = frozenset({"Cast", "Reshape", "Flatten", "Unsqueeze", "Squeeze", "Identity", "Transpose", "Expand"})


def candidate_feeds(model: ir.Model, seed: int) -> Iterator[Feeds]:
    """Inputs with growing dynamic axes; only one candidate where every axis is static."""
    values = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    free = any(not isinstance(d, int) for value in values for d in (dims(value) or ())[1:])
    for size in SIZES if free else SIZES[:1]:
        rng = np.random.default_rng(seed)
        yield {str(value.name): _random(value, size, rng) for value in values}


def one_image(model: ir.Model, feeds: Feeds) -> Feeds:
    """The first of several images: whether they are mixed up shows in float32, at half of float64's cost.

    `feeds` themselves where an input is no image or its batch is the model's own.
    """
    shapes = [dims(value) or () for value in model.graph.inputs if value.name in feeds]
    if any(len(shape) != 4 or isinstance(shape[0], int) for shape in shapes):
        return feeds
    return {name: array[:1] for name, array in feeds.items()}


def first_that_runs(
    model: ir.Model, run: Run, seed: int, errors: tuple[type[Exception], ...], spare: Feeds | None = None
) -> Feeds:
    """The first candidate that `run` accepts, or `spare`, which is known to be accepted.

    Raises:
        PrunecError PC504: the model runs on none of them.
    """
    reason: Exception | None = None
    for feeds in candidate_feeds(model, seed):
        try:
            run(feeds)
        except errors as refusal:
            reason = refusal
        else:
            return feeds
    if spare is not None:
        return spare
    raise PrunecError(
        "PC504",
        f"the model does not run on random inputs: {first_line(reason)}",
        hint="fix the dynamic axes with --input-shape NAME=1,3,224,224",
    )


def first_line(reason: BaseException | None) -> str:
    """The message of an exception, cut to a line that fits a diagnostic."""
    lines = str(reason).strip().splitlines()
    return lines[0][:300] if lines else type(reason).__name__


def _random(value: ir.Value, size: int, rng: np.random.Generator) -> np.ndarray:
    shape = [d if isinstance(d, int) else 2 if axis == 0 else size for axis, d in enumerate(dims(value) or ())]
    dtype = np.dtype((value.dtype or ir.DataType.FLOAT).numpy())
    if dtype.kind == "f" or dtype.kind == "V":
        return rng.standard_normal(shape).astype(dtype)
    if dtype.kind in "iu":
        high = 256 if dtype == np.uint8 else 2
        return rng.integers(0, min(_table_length(value) or high, 1000), shape).astype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    raise PrunecError("PC505", f"no random inputs of type {value.dtype}", where=value.name, hint="give --calib")


def _table_length(value: ir.Value, depth: int = 6) -> int | None:
    """Length of the shortest axis that `value` indexes through a Gather, or None."""
    found: list[int] = []
    for node, index in value.uses():
        if node.op_type in ("Gather", "GatherElements") and index == 1:
            axis = node.attributes.get_int("axis", 0)
            found.append(length(node.inputs[0], axis or 0) or 0)
        elif node.op_type in _THROUGH and index == 0 and depth > 0:
            found.append(_table_length(node.outputs[0], depth - 1) or 0)
    positive = [n for n in found if n > 0]
    return min(positive) if positive else None
