"""JSON with one spelling per value, so that the same inputs give the same bytes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np


def dumps(document: Any) -> str:
    """Sorted keys, two spaces, ASCII, floats by repr, one final newline. ValueError for NaN, which JSON has not."""
    return json.dumps(document, sort_keys=True, indent=2, allow_nan=False, default=_plain) + "\n"


def sha256_of(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def _plain(value: object) -> object:
    """numpy scalars and arrays as numbers and lists."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no place in JSON")
