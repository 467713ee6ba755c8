"""Where the TensorRT tables take their models from: the zoo, with its data; or the graphs of a folder, without any."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx_ir as ir

import prunec.models as zoo
from benchmarks.graph_files import graph_files, graph_name, read_graph
from benchmarks.zoo_shapes import SHAPES
from prunec.api.compilation import compile as compile_model
from prunec.api.opening import open_model
from prunec.api.results import Compiled
from prunec.backends.base import Range
from prunec.backends.tensorrt.limits import parse_ranges
from prunec.diagnostics import PrunecError
from prunec.frontend.input_shapes import real_inputs
from prunec.graph.shapes import dims

TARGET = "tensorrt-2:4"
RANGES = {
    "ocr-rec": ["x=1x3x48x160:4x3x48x320:8x3x48x640"],
    "ocr-det": ["x=1x3x480x480:1x3x480x480:2x3x640x640"],
    "minilm-l6": ["input_ids=1x8:8x32:32x128", "attention_mask=1x8:8x32:32x128"],
}
LENGTHS = (16, 32, 64)
"""Of dynamic axes other than the batch, in graphs."""
EXPECTED, WORTHWHILE, ELIGIBLE = "expected", "worthwhile", "eligible"
"""Which layers: worthwhile ones or, where a compile finds none, all eligible; the one; the other."""


@dataclass(frozen=True)
class Source:
    """One model that can be compiled; `calib` None: synthetic inputs."""

    name: str
    path: Path
    ranges: Mapping[str, Range]
    calib: str | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@contextmanager
def opened(name: str, graphs: Path | None) -> Iterator[Source]:
    """A graph's seeded weights are written to a file that goes away."""
    if graphs is None:
        entry = zoo.get(name)
        shapes = SHAPES.get(name, {})
        given = parse_ranges(RANGES[name]) if name in RANGES else ranges_of(open_model(entry.path, shapes).canonical)
        yield Source(name, entry.path, given, entry.calib, shapes)
        return
    with TemporaryDirectory(prefix="prunec-tensorrt-graph-") as place:
        (file,) = [path for path in graph_files(graphs) if graph_name(path) == name]
        model, path = read_graph(file), Path(place, f"{name}.onnx")
        ir.save(model, path)
        yield Source(name, path, ranges_of(model))


def ranges_of(model: ir.Model) -> dict[str, Range]:
    """A range for every dynamic input: the batch from 1 to 4, other axes from 16 to 64."""
    found: dict[str, Range] = {}
    for value in real_inputs(model):
        shape = dims(value) or ()
        if all(isinstance(d, int) for d in shape):
            continue
        three = [
            tuple(
                d if isinstance(d, int) else (1, 2, 4)[i] if axis == 0 else LENGTHS[i] for axis, d in enumerate(shape)
            )
            for i in range(3)
        ]
        found[str(value.name)] = (three[0], three[1], three[2])
    return found


def package(
    source: Source, out: Path, *, solver: str, samples: int, layers: str = EXPECTED, precision: str | None = None
) -> tuple[Compiled, str]:
    """The package, made without a GPU, and which layers were taken."""
    options = {
        "target": TARGET, "build": False, "measure": False, "solver": solver, "samples": samples,
        "calib": source.calib, "shape_ranges": source.ranges, "input_shapes": source.shapes, "output": out,
        "precision": precision,
    }  # fmt: skip
    if layers != ELIGIBLE:
        try:
            return compile_model(source.path, **options), "worthwhile"  # type: ignore[arg-type]
        except PrunecError as refusal:
            if layers == WORTHWHILE or refusal.diagnostic.code != "PC225":
                raise
    return compile_model(source.path, **options, include=["*"]), "all eligible"  # type: ignore[arg-type]
