"""Statistics on disk, keyed by what they depend on: the model's bytes, the data's fingerprint, needs, seed, limits."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from prunec.statistics.collect import LayerStatistics, Limits

FORMAT = 1
"""Raise it when the meaning of what is stored changes."""


def model_fingerprint(model: ir.Model) -> str:
    """sha256 of the nodes and the initializers' bytes; independent of paths, doc strings and storage."""
    digest = hashlib.sha256()
    for node in model.graph:
        digest.update(ir.serde.serialize_node(node).SerializeToString(deterministic=True))
    for name, value in sorted(model.graph.initializers.items()):
        assert value.const_value is not None
        digest.update(f"{name} {value.const_value.dtype} {value.const_value.shape}".encode())
        digest.update(value.const_value.tobytes())
    return digest.hexdigest()


def entry(folder: Path, model: ir.Model, data: str, needs: frozenset[str], seed: int, limits: Limits) -> Path:
    """Where the statistics of these inputs are kept."""
    key = repr((FORMAT, model_fingerprint(model), data, sorted(needs), seed, limits))
    return folder / f"statistics-{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"


def read(path: Path) -> dict[str, LayerStatistics] | None:
    """What `write` stored, or None where there is nothing readable (a damaged file is computed again)."""
    from prunec.statistics.collect import LayerStatistics

    try:
        with np.load(path) as stored:
            nodes = [str(name) for name in stored["nodes"]]
            found = {}
            for i, node in enumerate(nodes):
                own = {f.name: stored.get(f"{i}.{f.name}") for f in fields(LayerStatistics)}
                limited = own.pop("limited")
                count = own.pop("count")
                found[node] = LayerStatistics(
                    count=int(count), limited=None if limited is None else str(limited), **own
                )
            return found
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile):
        return None


def write(path: Path, statistics: dict[str, LayerStatistics]) -> None:
    """Whole or not at all."""
    arrays: dict[str, np.ndarray] = {"nodes": np.array(list(statistics), dtype=np.str_)}
    for i, own in enumerate(statistics.values()):
        for field in fields(own):
            value = getattr(own, field.name)
            if value is not None:
                arrays[f"{i}.{field.name}"] = np.asarray(value)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, suffix=".npz")
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
