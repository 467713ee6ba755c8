"""Finished layers on disk, so that the same command goes on where an interrupted one stopped.

A layer is solved on what the layers before it became, so the key of each is a chain: what the whole run depends on
(models, kept channels, data, options, code, machine), and after each layer its name, what it was to become and the hash
of what was kept of it. What is kept are the constants that changed, in the model and in the solver's baseline, and the
records; putting them back through `set_constant` gives the graph that solving gave, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from types import TracebackType
from typing import Any

import numpy as np
import onnx_ir as ir

from prunec.cache import Arrays, Cache
from prunec.made_by import made_by
from prunec.passes.compensate.constants import set_constant
from prunec.passes.compensate.options import CompensationRecord, LayerSolver, Options
from prunec.passes.compensate.pairs import Kept
from prunec.statistics.cache import model_fingerprint
from prunec.statistics.collect import CalibrationData

LOG = logging.getLogger("prunec")
OUTPUTS = "the model's outputs"
Place = tuple[int, str, int]
"""(which model, node, input)."""


def first_link(dense: ir.Model, cut: ir.Model, kept: Kept, calibration: CalibrationData, options: Options) -> str:
    """What a whole run depends on, in one hash; how much memory it may take is no part of that."""
    digest = hashlib.sha256(f"{made_by()} {model_fingerprint(dense)} {model_fingerprint(cut)}".encode())
    digest.update(f"{calibration.fingerprint} {replace(options, ram_bytes=0, folder=None)!r}".encode())
    for axes in (kept.analysis.value_axes, kept.analysis.use_axes):
        for key, ids in axes.items():
            digest.update(repr(key).encode())
            for own in ids:
                digest.update(b"-" if own is None else np.packbits(kept.alive[own]).tobytes())
    return digest.hexdigest()


class Ledger:
    """Layers in the order in which they are solved, those that are known first.

    `models`: the model that is being refitted, and the solver's baseline where there is a solver. Without a cache
    nothing is known and nothing kept.
    """

    def __init__(self, cache: Cache | None, first: str, models: Sequence[ir.Model], solver: LayerSolver | None) -> None:
        self.cache, self.models, self.solver = cache, models, solver
        self._chain = first
        self._kept = 0

    def known(self, name: str) -> CompensationRecord | None:
        """Put a layer back as it was solved before; None where it was not."""
        found = self._read(name)
        if found is None:
            return None
        arrays, about = found
        for number, (which, node, index, kind, shape) in enumerate(about["places"]):
            nodes = {own.name: own for own in self.models[which].graph}
            array = arrays[str(number)].view(ir.DataType(kind).numpy()).reshape(shape)
            set_constant(self.models[which].graph, nodes[node], index, array)
        if self.solver is not None and about["result"] is not None:
            self.solver.restore(name, about["result"])
        record = about["record"]
        return CompensationRecord(**{**record, "notes": tuple(record["notes"])})

    def known_errors(self) -> tuple[float, float] | None:
        """The outputs' errors at the end, once all layers are known."""
        found = self._read(OUTPUTS)
        return None if found is None else (found[1]["before"], found[1]["after"])

    def constants(self) -> dict[Place, ir.TensorProtocol]:
        """What stands in the models now: to be taken before a layer is solved and given to `keep` after it."""
        if self.cache is None:
            return {}
        return {
            (which, node.name or "", index): value.const_value
            for which, model in enumerate(self.models)
            for node in model.graph
            for index, value in enumerate(node.inputs)
            if value is not None and value.const_value is not None
        }

    def keep(self, name: str, before: Mapping[Place, ir.TensorProtocol], record: CompensationRecord) -> None:
        """Write down a layer that was solved just now."""
        changed = [(place, now) for place, now in self.constants().items() if before.get(place) is not now]
        arrays: Arrays = {}
        places = []
        for number, (place, tensor) in enumerate(changed):
            arrays[str(number)] = np.frombuffer(tensor.tobytes(), np.uint8)
            places.append([*place, int(tensor.dtype), list(tensor.numpy().shape)])
        result = None if self.solver is None else self.solver.result(name)
        self._write(name, arrays, {"places": places, "record": asdict(record), "result": result})

    def keep_errors(self, errors: tuple[float, float]) -> None:
        self._write(OUTPUTS, {}, {"before": errors[0], "after": errors[1]})

    # -- the chain ----------------------------------------------------------------------------------------------
    def _key(self, name: str) -> str:
        wanted = "" if self.solver is None else self.solver.describe(name)
        return repr(("layer", self._chain, name, wanted))

    def _read(self, name: str) -> tuple[Arrays, dict[str, Any]] | None:
        if self.cache is None:
            return None
        key = self._key(name)
        found = self.cache.read(key)
        if found is None:
            return None
        arrays, digest = found
        self._chain = hashlib.sha256(f"{key}\0{digest}".encode()).hexdigest()
        return arrays, json.loads(str(arrays["about"]))

    def _write(self, name: str, arrays: Arrays, about: dict[str, Any]) -> None:
        if self.cache is None:
            return
        key = self._key(name)
        digest = self.cache.write(key, {"about": np.array(json.dumps(about)), **arrays})
        if digest is None:  # what comes after could never be found
            self.cache = None
            return
        self._chain = hashlib.sha256(f"{key}\0{digest}".encode()).hexdigest()
        self._kept += 1

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, Exception) and self._kept:
            LOG.info("layers solved so far are kept: the same command goes on from there")
