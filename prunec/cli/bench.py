"""`prunec bench`: time a package again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from prunec.cli import options as o
from prunec.cli.answer import Answer
from prunec.cli.verify import Package, Source

if TYPE_CHECKING:
    from rich.console import Console

    from prunec.measure.results import Measurements


def bench(
    package: Package,
    source: Source = None,
    threads: o.Threads = 1,
    blocks: Annotated[
        int, typer.Option("--blocks", min=6, help="Timed blocks per contender, rounded up to fill five processes.")
    ] = 30,
    seed: o.Seed = 0,
    input_shape: o.InputShape = None,
    json: o.Json = False,
) -> Answer:
    """Time the model in OUT on this machine; with --source, against the dense model.

    prunec bench model.pruned --source model.onnx --threads 4
    """
    from prunec.api import benchmarking
    from prunec.cli.progress import shown

    with shown() as progress:
        found = benchmarking.bench(
            package, source=source, threads=threads, blocks=blocks, seed=seed, input_shapes=o.input_shapes(input_shape),
            progress=progress,
        )  # fmt: skip
    return Answer(found.to_json(), lambda out: show(out, found))


def show(out: Console, found: Measurements) -> None:
    """Latencies and speed-ups, the layers of a compiled model, and the machine and the protocol in a line."""
    from rich.table import Table
    from rich.text import Text

    from prunec.measure.contender import BASELINES
    from prunec.report import units
    from prunec.report.console import print_layer_times

    table = Table("contender")
    for heading in ("median", "90 %", "peak memory"):
        table.add_column(heading, justify="right")
    for name, times in found.contenders.items():
        memory = "" if times.peak_rss_mib is None else f"{times.peak_rss_mib:.0f} MiB"
        table.add_row(name, units.ms(times.p50_ms), units.ms(times.p90_ms), memory)
    out.print(table)
    for name, speedup in found.speedup.items():
        out.print(Text(f"{found.protocol.subject} {name.replace('_', ' ', 1)}: {units.interval(speedup)}"))
    if not any(f"vs_{name}" in found.speedup for name in BASELINES):
        out.print(Text("No speed-up over the dense model: give it with --source."))
    if found.layers:
        print_layer_times(out, found.layers)
    threads = f"{found.protocol.threads} thread{'s' * (found.protocol.threads > 1)}"
    protocol = f"{threads}, {found.protocol.blocks} blocks, {found.protocol.order}"
    out.print(Text(f"{found.machine.cpu}; {protocol}"))
