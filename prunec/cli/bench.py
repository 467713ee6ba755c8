"""`prunec bench`: time a package again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from prunec.cli import options as o
from prunec.cli.answer import Answer
from prunec.cli.verify import Package, Source

if TYPE_CHECKING:
    from rich.console import Console

    from prunec.api.device_bench import OnDevice
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
    device_csv: Annotated[
        str | None,
        typer.Option("--device-csv", metavar="FILE", help="What the runner of an arm64 package printed on its device."),
    ] = None,
    json: o.Json = False,
) -> Answer:
    """Time the model in OUT on this machine; with --source, against the dense model.

    prunec bench model.pruned --source model.onnx --threads 4

    A package for another machine (arm64) is not timed here: the answer is the command for the device, and what that
    prints goes into the package with --device-csv.
    """
    from prunec.api import benchmarking, device_bench
    from prunec.cli.progress import shown

    if device_csv is not None or device_bench.runs_elsewhere(package):
        elsewhere = device_bench.bench_device(package, device_csv=device_csv, threads=threads)
        return Answer(elsewhere.to_json(), lambda out: show_device(out, elsewhere))
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


def show_device(out: Console, found: OnDevice) -> None:
    """The command, or what the device took, step by step."""
    from rich.table import Table
    from rich.text import Text

    from prunec.report import units

    if found.device is None:
        out.print("Nothing is measured here: this package runs on another machine. There, in the package's folder:")
        out.print(Text(f"\n    {found.command}\n"), soft_wrap=True)
        out.print("and then here: prunec bench OUT --device-csv times.csv")
        return
    device = found.device
    threads = f"{device.threads} thread{'s' * (device.threads > 1)}"
    table = Table("step", title=Text(f"measured on {device.device}, {threads}"), title_justify="left")
    for heading in ("best", "modelled"):
        table.add_column(heading, justify="right")
    modelled = {} if found.modelled is None else {layer.name: layer.sparse_us for layer in found.modelled.layers}
    for step in device.steps:
        own = next((modelled[node] for node in step.nodes.split(", ") if node in modelled), None)
        table.add_row(Text(step.nodes), units.ms(step.best_us / 1e3), "–" if own is None else units.ms(own / 1e3))
    out.print(table)
    out.print(Text(f"one run takes {units.ms(device.run_ms)} (median); measurements.json and report.html say so now"))
