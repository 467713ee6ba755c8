"""Names a user may write, and the classes they stand for: lazy tables of "module:Class" rows.

To add a built-in criterion, add one row here. Another package adds its own through an entry point:

    [project.entry-points."prunec.criteria"]
    my-criterion = "my_package.scores:MyCriterion"

Nothing is imported before it is asked for. Two owners of one name are refused rather than ordered.
"""

from __future__ import annotations

import difflib
import functools
import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from prunec.diagnostics import PrunecError

CRITERIA: dict[str, str] = {
    "l1": "prunec.criteria.magnitude:L1",
    "l2": "prunec.criteria.magnitude:L2",
    "lamp": "prunec.criteria.lamp:Lamp",
    "fpgm": "prunec.criteria.fpgm:GeometricMedian",
    "bn-scale": "prunec.criteria.bn_scale:BatchNormScale",
    "random": "prunec.criteria.random:Random",
    "activation": "prunec.criteria.activation:Activation",
    "flap": "prunec.criteria.flap:Fluctuation",
    "wanda": "prunec.criteria.wanda:Wanda",
    "obs": "prunec.criteria.obs:OptimalBrainSurgeon",
    "taylor": "prunec.criteria.taylor:Taylor",
    "fisher": "prunec.criteria.fisher:Fisher",
    "gblm": "prunec.criteria.gblm:GradientBlend",
    "lrp": "prunec.criteria.lrp:Relevance",
}

BACKENDS: dict[str, str] = {
    "cpu": "prunec.backends.cpu.target:Cpu",
    "x86-avx2": "prunec.backends.cpu.target:Avx2",
    "x86-avx512": "prunec.backends.cpu.target:Avx512",
    "arm64": "prunec.backends.arm64.target:Arm64",
    "wasm": "prunec.backends.wasm.target:Wasm",
    "tensorrt-2:4": "prunec.backends.tensorrt.target:TensorRT",
    "torch-tensorrt-2:4": "prunec.backends.torch_tensorrt.target:TorchTensorRT",
}
"""Targets whose packages hold more than model.onnx."""

INT8_BACKENDS: dict[str, str] = {
    "cpu": "prunec.backends.cpu.int8_target:Int8Cpu",
    "wasm": "prunec.backends.wasm.int8_target:Int8Wasm",
    "arm64": "prunec.backends.arm64.int8_target:Int8Arm64",
}
"""What makes them with `--precision int8`, where that is another thing altogether."""


@dataclass(frozen=True)
class Catalogue:
    """One kind of named thing. `rows` maps a name to "module:attribute"; `group` is the entry-point group."""

    kind: str
    rows: Mapping[str, str]
    group: str

    def names(self) -> list[str]:
        return sorted(self._table())

    def load(self, name: str) -> Any:
        """The class (or whatever the row names) called `name`.

        Raises:
            PrunecError PC203: no such name; the message lists the names, the hint the nearest one.
            PrunecError PC213: two packages claim one name, or a row points nowhere.
        """
        table = self._table()
        if name not in table:
            raise unknown_name("PC203", self.kind, name, table)
        module, _, attribute = table[name].partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise PrunecError(
                "PC213", f"the {self.kind} {name!r} cannot be loaded: {error}", where=table[name]
            ) from error

    def _table(self) -> dict[str, str]:
        table = dict(self.rows)
        for point in _installed(self.group):
            if table.setdefault(point.name, point.value) != point.value:
                owners = f"{table[point.name]} and {point.value}"
                hint = "uninstall one of the two packages, or rename its entry point"
                raise PrunecError("PC213", f"two of one name: {owners}", where=f"{self.group} {point.name}", hint=hint)
        return table


@functools.cache
def _installed(group: str) -> tuple[Any, ...]:
    return tuple(entry_points(group=group))


def unknown_name(code: str, kind: str, name: str, known: Iterable[str]) -> PrunecError:
    """The error for a name nobody knows: what there is, and what was probably meant."""
    names = sorted(known)
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else None
    return PrunecError(code, f"there is no {kind} {name!r}; there is {shown or 'none'}", where=name, hint=hint)


criteria = Catalogue("criterion", CRITERIA, "prunec.criteria")
backends = Catalogue("target", BACKENDS, "prunec.backends")
int8_backends = Catalogue("target", INT8_BACKENDS, "prunec.int8_backends")
