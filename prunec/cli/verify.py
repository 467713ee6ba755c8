"""`prunec verify`: check a package again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from prunec.cli import options as o
from prunec.cli.answer import Answer

if TYPE_CHECKING:
    from rich.console import Console

    from prunec.api.verification import Verified

Package = Annotated[str, typer.Argument(metavar="OUT", help="A package that compile wrote.", show_default=False)]
Source = Annotated[
    str | None, typer.Option("--source", metavar="MODEL", help="The dense model that the package was made from.")
]


def verify(
    package: Package,
    source: Source = None,
    calib: o.Calib = None,
    metric: o.Metric = None,
    samples: o.Samples = None,
    seed: o.Seed = 0,
    threads: o.Threads = 1,
    input_shape: o.InputShape = None,
    json: o.Json = False,
) -> Answer:
    """Check that OUT is what was compiled and that it runs; with --source, prove its cut and judge its quality again.

    prunec verify model.pruned --source model.onnx --calib images.npz
    """
    from prunec.api import verification
    from prunec.cli.progress import shown

    with shown() as progress:
        found = verification.verify(
            package, source=source, calib=calib, metric=metric, samples=samples, seed=seed, threads=threads,
            input_shapes=o.input_shapes(input_shape), progress=progress,
        )  # fmt: skip
    return Answer(found.to_json(), lambda out: show(out, found))


def show(out: Console, found: Verified) -> None:
    """One line per thing that was checked."""
    from rich.text import Text

    from prunec.report import units

    out.print(Text(f"files: {found.files} with hashes, all as they were written; records of what was found carry none"))
    out.print(Text("model: runs, and gives what the manifest says"))
    if found.weights_proved is not None:
        out.print(Text(f"artifact: {found.weights_proved} weights are 2:4 and have the bytes that were proved"))
    if found.exactness is not None:
        error = units.error(found.exactness.class_a_max_rel)
        out.print(Text(f"cut: {found.exactness.groups_checked} groups, exact up to {error}"))
    if found.quality is not None:
        q = found.quality
        values = f"{units.number(q.dense)} dense, {units.number(q.pruned)} pruned, drop {units.number(q.drop)}"
        out.print(Text(f"quality: {q.metric} ({q.data} data): {values}"))
    elif found.exactness is not None and found.recorded is not None and found.recorded.quality is not None:
        q = found.recorded.quality
        text = f"quality: not judged again without the data; the compile found {q.metric} {units.number(q.pruned)}"
        out.print(Text(f"{text} ({q.data} data). Give it with --calib or --metric"))
    if found.exactness is None:
        out.print(Text("cut and quality: not checked; give the dense model with --source"))
