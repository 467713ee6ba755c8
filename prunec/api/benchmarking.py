"""`bench`: time a package again, on this machine, now."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from prunec.api.opening import PathLike, one_sample
from prunec.api.progress import Progress, silent
from prunec.diagnostics import PrunecError
from prunec.frontend.calibration import open_calibration
from prunec.frontend.onnx import load
from prunec.measure.contender import DENSE, PRUNED, Contender
from prunec.measure.results import Measurements
from prunec.measure.run import measure
from prunec.package.load import Package, load_package


def bench(
    package: PathLike,
    *,
    source: PathLike | None = None,
    threads: int = 1,
    blocks: int = 30,
    seed: int = 0,
    progress: Progress = silent,
) -> Measurements:
    """Time the package's model on a synthetic input, against the dense `source` where that is given.

    Without `source` there is a latency and no speed-up. The package is not changed.

    Raises:
        PrunecError PC61x: the package; PC615: `source` is not what it was made from; PC510: threads or blocks.
        GateError PC512 to PC519: it could not be measured.
    """
    opened = load_package(Path(package))
    contenders = [Contender(PRUNED, opened.model_path.absolute())]
    if source is not None:
        check_source(opened, source)
        contenders.insert(0, Contender(DENSE, Path(source).absolute()))
    model = ir.load(opened.model_path)
    feeds = one_sample(open_calibration(None, model, samples=2, seed=seed), model)
    return measure(contenders, feeds, threads=threads, blocks=blocks, seed=seed, progress=progress)


def check_source(package: Package, source: PathLike) -> None:
    """Raise PrunecError PC615 if the file `source` is not the one that the package was made from."""
    found = load(source).sha256
    if found != package.manifest.source.sha256:
        made_from = package.manifest.source
        raise PrunecError(
            "PC615",
            f"the package was made from another file (sha256 {made_from.sha256[:12]}…, not {found[:12]}…)",
            where=str(source),
            hint=f"its source was called {made_from.name}",
        )
