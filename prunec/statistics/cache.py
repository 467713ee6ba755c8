"""Statistics in the cache, keyed by all they depend on: model, data, needs, seed, threads, limits, and `made_by`."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from prunec.cache import Arrays, Cache
from prunec.made_by import made_by

if TYPE_CHECKING:
    from prunec.statistics.collect import LayerStatistics, Limits


def model_fingerprint(model: ir.Model) -> str:
    """sha256 of the nodes and the initializers' bytes; independent of paths, doc strings and storage."""
    digest = hashlib.sha256()
    for value in (*model.graph.inputs, *model.graph.outputs):
        digest.update(f"{value.name} {value.dtype} {value.shape}\0".encode())
    for node in model.graph:
        digest.update(ir.serde.serialize_node(node).SerializeToString(deterministic=True))
    for name, value in sorted(model.graph.initializers.items()):
        assert value.const_value is not None
        digest.update(f"{name} {value.const_value.dtype} {value.const_value.shape}".encode())
        digest.update(value.const_value.tobytes())
    return digest.hexdigest()


def key_of(model: ir.Model, data: str, needs: frozenset[str], seed: int, threads: int, limits: Limits) -> str:
    """What the statistics of these inputs are kept under."""
    return repr(("statistics", made_by(), model_fingerprint(model), data, sorted(needs), seed, threads, limits))


def read(cache: Cache, key: str) -> dict[str, LayerStatistics] | None:
    """What `write` stored, or None where there is nothing."""
    from prunec.statistics.collect import LayerStatistics

    stored = cache.read(key)
    if stored is None:
        return None
    arrays = stored[0]
    found = {}
    for i, node in enumerate(arrays["nodes"]):
        own = {f.name: arrays.get(f"{i}.{f.name}") for f in fields(LayerStatistics)}
        limited = own.pop("limited")
        count = own.pop("count")
        assert count is not None
        found[str(node)] = LayerStatistics(
            count=int(count), limited=None if limited is None else str(limited), **own  # type: ignore[arg-type]
        )  # fmt: skip
    return found


def write(cache: Cache, key: str, statistics: dict[str, LayerStatistics]) -> None:
    """Whole or not at all."""
    arrays: Arrays = {"nodes": np.array(list(statistics), dtype=np.str_)}
    for i, own in enumerate(statistics.values()):
        for field in fields(own):
            value = getattr(own, field.name)
            if value is not None:
                arrays[f"{i}.{field.name}"] = np.asarray(value)
    cache.write(key, arrays)
