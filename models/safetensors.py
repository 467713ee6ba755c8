"""Read a `.safetensors` file: an int64 header length, a JSON header (name → dtype, shape, byte range), raw data."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunec.diagnostics import PrunecError

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}


def load_safetensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Every tensor as a read-only array that maps the file. Raises PC706 for a file that contradicts itself."""
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(length, 100_000_000)))
        data = np.memmap(path, np.uint8, mode="r", offset=8 + length)
        header.pop("__metadata__", None)
        return {name: _tensor(data, entry) for name, entry in sorted(header.items())}
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PrunecError("PC706", f"not a readable safetensors file: {error}", where=str(path)) from error


def _tensor(data: npt.NDArray[np.uint8], entry: dict[str, Any]) -> npt.NDArray[Any]:
    start, stop = entry["data_offsets"]
    return np.asarray(data[start:stop].view(DTYPES[entry["dtype"]]).reshape(entry["shape"]))
