"""ONNX file → `Source`: the model as `onnx_ir`, checked once, so that everything behind it may trust it.

Large weights stay on disk and are read when their numbers are asked for (external data is memory-mapped); the file is
opened for reading only.

| code  | says                                                    | raised in        |
|-------|---------------------------------------------------------|------------------|
| PC001 | not a readable file                                     | protobuf.py      |
| PC002 | the file is empty                                       | protobuf.py      |
| PC003 | not an ONNX file, or truncated                          | protobuf.py      |
| PC004 | an ONNX file without graph, opset or IR version         | protobuf.py      |
| PC005 | the graph is not valid ONNX                             | structure.py     |
| PC006 | external data outside the model's folder                | external_data.py |
| PC007 | external data file is missing                           | external_data.py |
| PC008 | external data is too short, or its description is wrong | external_data.py |
| PC009 | the graph has no outputs                                | structure.py     |
| PC010 | opset version or domain not supported                   | operators.py     |
| PC011 | unknown operator in the ai.onnx domain                  | operators.py     |
| PC012 | NaN or Inf in a weight                                  | weights.py       |
| PC013 | an input has a dimension of size zero                   | structure.py     |
| PC014 | sparse initializer                                      | structure.py     |
| PC015 | the model is in training mode                           | operators.py     |
| PC016 | `--input-shape` cannot be read                          | input_shapes.py  |
| PC017 | `--input-shape` does not fit the model                  | input_shapes.py  |
| PC018 | a tensor's data and its shape disagree                  | weights.py       |
| PC019 | warning: an operator of a custom domain                 | operators.py     |
| PC020 | warning: the opset could not be raised to 13            | passes           |
| PC021 | an input or output is not a tensor                      | structure.py     |
| PC022 | the file changes while it is read                       | graph/stored.py  |
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx_ir as ir

from prunec.diagnostics import Diagnostic
from prunec.frontend import external_data, operators, protobuf, structure, weights
from prunec.frontend.input_shapes import apply_input_shapes, parse_input_shapes
from prunec.frontend.own_tensors import own_tensors

__all__ = ["Source", "load", "parse_input_shapes"]


@dataclass(frozen=True)
class Source:
    """A model and where it came from. `sha256` covers the .onnx file and every external data file it names.

    `is_file` is False for a torch module: `path` is then only the name to show.
    """

    model: ir.Model
    path: Path
    sha256: str
    warnings: list[Diagnostic] = field(default_factory=list)
    is_file: bool = True


def load(path: str | os.PathLike[str], *, input_shapes: Mapping[str, Sequence[int | None]] | None = None) -> Source:
    """Read and check the ONNX file at `path`; raise `PrunecError` PC0xx with what to do about it.

    `input_shapes` ({"input": [1, 3, 224, 224]}) makes dynamic axes static; all others stay dynamic.
    """
    file = Path(path)
    proto = protobuf.read(file)
    structure.check_proto(proto, file)
    data_files = external_data.check(proto, file)
    model = structure.to_ir(proto, file)
    warnings = operators.check(model)
    structure.check_graph(model)
    weights.check(model)
    structure.check_valid(proto, model, file)
    own_tensors(model, file)
    if input_shapes:
        apply_input_shapes(model, input_shapes)
    return Source(model, file, external_data.sha256(file, data_files), warnings)
