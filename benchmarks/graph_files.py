"""Read graphs for benchmarks: `.onnx`, or `.onnx.gz` whose large weights were left out and are filled here.

Missing weights become He-initialised normals (std = √(2 / fan-in)), seeded by tensor name: the structure, cost and
exactness of a network need no trained weights, its quality does.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

FILLED_ABOVE = 1024


def graph_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.name.endswith((".onnx", ".onnx.gz")))


def graph_name(path: Path | str) -> str:
    return Path(path).name.removesuffix(".gz").removesuffix(".onnx")


def read_graph(path: Path, seed: int = 0) -> ir.Model:
    """Model of one file, with seeded weights where the file has none."""
    if path.suffix != ".gz":
        return ir.load(path)
    with gzip.open(path, "rb") as file:
        proto = onnx.load_model_from_string(file.read())
    for tensor in proto.graph.initializer:
        if tensor.HasField("raw_data") or tensor.float_data or len(tensor.dims) < 2:
            continue
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
        if dtype.kind == "f" and math.prod(tensor.dims) > FILLED_ABOVE:
            rng = np.random.default_rng([seed, zlib.crc32(tensor.name.encode())])
            scale = math.sqrt(2 / math.prod(tensor.dims[1:]))
            values = rng.standard_normal(tuple(tensor.dims), dtype=np.float32) * np.float32(scale)
            tensor.raw_data = values.astype(dtype).tobytes()
    return ir.from_proto(proto)
