"""`load`: a package, ready to run."""

from __future__ import annotations

from pathlib import Path

from prunec.api.opening import PathLike
from prunec.diagnostics import PrunecError
from prunec.package.load import Package, Runtime, load_package


def load(package: PathLike, *, threads: int = 1, runtime: Runtime | None = None) -> Package:
    """Open the package and check its files; `load(OUT).run({"input": array})` gives the outputs by name.

    A compiled model runs in its own code, unless the compile measured that ONNX Runtime is faster on the pruned model;
    `runtime` ("prunec" or "onnxruntime") decides otherwise. Packages without compiled code run in ONNX Runtime.

    Raises:
        PrunecError PC61x: there is no package, or a file is missing or changed; PC510: threads; PC619, from `run`:
        nothing compiled to run; PC451, from `run`: compiled for another machine.
    """
    if threads < 1:
        raise PrunecError("PC510", f"cannot run on {threads} threads", where="threads", hint="1 or more")
    if runtime not in (None, "prunec", "onnxruntime"):
        raise PrunecError("PC619", f"there is no run time {runtime!r}", where="runtime", hint="prunec or onnxruntime")
    return load_package(Path(package), threads=threads, runtime=runtime)
