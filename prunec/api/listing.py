"""`recipes` and `zoo`: what there is by name, and fetching a model of the zoo."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prunec.api.opening import PathLike
from prunec.api.record import Result
from prunec.diagnostics import PrunecError
from prunec.package.errors import os_errors
from prunec.recipes.loader import DEFAULT, Recipe, load, names


class Recipes(Result):
    """Packaged recipes by name; `default` is what `compile` takes without --recipe."""

    default: str
    recipes: tuple[Recipe, ...]


class ZooRow(Result):
    """One model of the zoo. `megabytes` are what the first `get` downloads, `data_megabytes` its first calibration."""

    name: str
    summary: str
    licence: str
    inputs: dict[str, str]
    parameters: int
    megabytes: float
    data_megabytes: float
    dense: dict[str, float]
    calib: str | None = None
    metric: str | None = None
    path: str | None = None


class Zoo(Result):
    """Models of the zoo; after a `get`, the one that was asked for, with its `path`."""

    models: tuple[ZooRow, ...]

    def to_json(self) -> dict[str, Any]:
        return {"models": [row.to_json() for row in self.models]}


def recipes() -> Recipes:
    """The packaged recipes: criterion, scope and compensation of one published system each."""
    return Recipes(default=DEFAULT, recipes=tuple(load(name) for name in names()))


def zoo(
    name: str | None = None,
    *,
    output: PathLike | None = None,
    force: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Zoo:
    """All models of the zoo, or the one called `name`: fetched and built into the cache, and copied to `output`.

    Raises:
        PrunecError PC707: no such model; PC701 to PC706, PC708: it cannot be fetched; PC608: `output` is there already.
    """
    from prunec import models

    if name is None:
        return Zoo(models=tuple(_row(entry) for entry in models.entries()))
    target = None if output is None else _destination(Path(output), name, force)
    found = models.get(name, progress=progress)
    path = found.path
    if target is not None:
        _copy(path, target)
        path = target
    return Zoo(models=(_row(found.entry).model_copy(update={"path": str(path)}),))


def _row(entry: Any) -> ZooRow:
    return ZooRow(
        name=entry.name,
        summary=entry.summary,
        licence=entry.licence,
        inputs=dict(entry.inputs),
        parameters=entry.parameters,
        megabytes=round(entry.megabytes, 1),
        data_megabytes=round(entry.data_megabytes, 1),
        dense=dict(entry.dense),
        calib=entry.calib,
        metric=entry.metric,
    )


def _destination(output: Path, name: str, force: bool) -> Path:
    """A file; a folder means a file of the model's name in it."""
    target = output / f"{name}.onnx" if output.is_dir() else output
    if target.exists() and not force:
        raise PrunecError("PC608", "there is a file already", where=str(target), hint="pass --force to replace it")
    if not target.parent.is_dir():
        raise PrunecError("PC604", "the folder does not exist", where=str(target.parent), hint="create it first")
    return target


def _copy(source: Path, target: Path) -> None:
    """Whole or not at all: through a hidden file beside the target."""
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        with os_errors(target):
            partial.write_bytes(source.read_bytes())
            partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
