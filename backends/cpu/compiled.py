"""A compiled model in Python: its parts in turn, generated ones through ctypes, the others in ONNX Runtime.

Needs no TVM. Bools come back as bools.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from prunec.backends.cpu.isa import ISAS, Isa, check_isa
from prunec.backends.cpu.layout import LIBRARY, PART_MODEL, PARTS, WEIGHTS
from prunec.backends.cpu.library import Model, refuse_nan
from prunec.diagnostics import PrunecError

Feeds = Mapping[str, np.ndarray]


class _Part(Protocol):
    def run(self, feeds: Feeds) -> dict[str, np.ndarray]: ...

    def close(self) -> None: ...


class CompiledModel:
    """The folder `cpu` of a package, ready to run. Safe to call from several threads; calls wait for each other.

    Raises:
        PrunecError PC451: not for this machine; PC610: `parts.json` is not what prunec wrote; PC622: the library.
    """

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        document = _read(folder / PARTS)
        isa = ISAS.get(document["isa"]) or Isa(document["isa"], "", 0, 0, tuple(document["flags"]))
        check_isa(isa)
        self.isa = isa.name
        self.foreign: list[dict[str, str]] = document["in_onnxruntime"]
        self._bools = {record["name"] for record in document["outputs"] if record["dtype"] == "bool"}
        self._inputs = [record["name"] for record in document["inputs"]]
        self._outputs = [record["name"] for record in document["outputs"]]
        self._parts: list[tuple[_Part, list[str], list[str]]] = []
        for part in document["parts"]:
            own = folder / part["folder"]
            runner: _Part = (
                Model(own / LIBRARY, own / WEIGHTS, threads=threads, takes_nan=len(document["parts"]) > 1)
                if part["kind"] == "generated"
                else _OnnxPart(own / PART_MODEL, threads)
            )
            self._parts.append((runner, part["inputs"], part["outputs"]))

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """Outputs by name. PC614, PC621 and PC622 as `library.Model.run`."""
        if feeds.keys() != set(self._inputs):
            given = ", ".join(sorted(feeds)) or "none"
            raise PrunecError("PC614", f"the model takes {', '.join(self._inputs) or 'no inputs'}, not {given}")
        if len(self._parts) == 1:
            return self._typed(self._parts[0][0].run(feeds))
        for name, array in feeds.items():
            refuse_nan(name, np.asarray(array))
        values = dict(feeds)
        for runner, inputs, _ in self._parts:
            values.update(runner.run({name: values[name] for name in inputs}))
        return self._typed({name: values[name] for name in self._outputs})

    def _typed(self, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for name in self._bools & outputs.keys():
            outputs[name] = outputs[name].view(np.bool_)
        return outputs

    def profile(self, feeds: Feeds) -> list[tuple[str, int]]:
        """Nodes and nanoseconds of every step, parts in ONNX Runtime as one step each."""
        import time

        values, found = dict(feeds), list[tuple[str, int]]()
        for runner, inputs, _ in self._parts:
            own = {name: values[name] for name in inputs}
            start = time.perf_counter_ns()
            values.update(runner.run(own))
            taken = time.perf_counter_ns() - start
            found += runner.profile(own) if isinstance(runner, Model) else [("ONNX Runtime", taken)]
        return found

    def close(self) -> None:
        """Free everything; idempotent."""
        for runner, _, _ in self._parts:
            runner.close()


def compiled_shapes(folder: Path) -> list[dict[str, tuple[int, ...]]]:
    """The shapes of the inputs that the model in `folder` was compiled for, by name. PC610 as for `CompiledModel`."""
    found = _read(folder / PARTS)["shapes"]
    return [{name: tuple(shape) for name, shape in each.items()} for each in found]


class _OnnxPart:
    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as reason:  # noqa: BLE001  (ONNX Runtime has an exception for every cause)
            why = str(reason).strip().splitlines()[-1]
            message = f"ONNX Runtime cannot load a part of the model: {why}"
            raise PrunecError("PC622", message, where=str(path), hint="compile the model again") from None
        self._bools = {value.name for value in self._session.get_inputs() if value.type == "tensor(bool)"}
        self._names = [value.name for value in self._session.get_outputs()]

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        own = {name: a.view(np.bool_) if name in self._bools else a for name, a in feeds.items()}
        found = self._session.run(self._names, own)
        return dict(zip(self._names, found, strict=True))

    def close(self) -> None:
        return


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["schema_version"] == 1:
            assert isinstance(document, dict)
            return document
        reason = f"schema {document['schema_version']} of a newer prunec"
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error)
    raise PrunecError("PC610", f"not as prunec wrote it: {reason}", where=str(path), hint="compile the model again")
