"""The same results as tables for the terminal (stderr: stdout belongs to --json).

Names from the model are `Text`, so that brackets in them are never taken for markup.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from prunec.measure.results import LayerTiming
from prunec.report import units
from prunec.report.data import Document, ReportData, before_after, planned_groups
from prunec.report.training import early_ends

_STYLE = {True: "green", False: "red", None: ""}


def print_summary(console: Console, data: ReportData) -> None:
    """Before and after, and one sentence if nothing was measured."""
    name = data.manifest["source"]["name"]
    table = Table("", title=Text(f"{name} for {data.manifest['target']}"), title_justify="left")
    for heading in ("before", "after", "change"):
        table.add_column(heading, justify="right")
    for row in before_after(data):
        table.add_row(Text(row.label), row.before, row.after, Text(row.change, style=_STYLE[row.good]))
    console.print(table)
    if data.modelled is not None:
        modelled = data.modelled
        times = " dense, ".join(units.ms(modelled[key]) for key in ("dense_ms", "sparse_ms"))
        text = f"Nothing was measured. Modelled for {modelled['core']}: {len(modelled['layers'])} layers take {times}"
        console.print(Text(f"{text} as they are{whole_run(modelled)}."))
    elif data.measurements is None:
        console.print("Nothing was measured, so nothing is said about speed.")
    quality = data.verification.get("quality") or {}
    if quality.get("data") == "synthetic":
        console.print("Quality was found on synthetic inputs: it says little about real ones.", style="yellow")


def whole_run(modelled: Document) -> str:
    """What a whole run is modelled to take, to go behind what its layers do; empty where that is not known."""
    if "run_ms" not in modelled:
        return ""
    before, after = modelled["run_dense_ms"], modelled["run_ms"]
    return f", a whole run {units.ms(before)} dense and {units.ms(after)} ({units.factor(before / after)} as fast)"


def print_groups(console: Console, plan: Document) -> None:
    """Size and kept channels of every group of a plan."""
    table = Table("group", title="groups", title_justify="left")
    for heading in ("channels", "kept", "cut"):
        table.add_column(heading, justify="right")
    for group in planned_groups(plan):
        kept = group["kept"] if "kept" in group else len(group["keep"])
        share = units.share(1 - kept / group["size"]) if group["size"] else "–"
        table.add_row(Text(str(group["id"])), str(group["size"]), str(kept), share)
    if table.row_count:
        console.print(table)


def print_blocks(console: Console, plan: Document) -> None:
    """Blocks of a plan that go, and what the outputs lose without each of them alone."""
    if plan.get("depth"):
        table = Table("block", "kind", title="blocks that go", title_justify="left")
        table.add_column("relative squared error alone", justify="right")
        for block in plan["depth"]:
            table.add_row(Text(block["name"]), block["kind"], units.error(block["error"]))
        console.print(table)


def print_layers(console: Console, plan: Document) -> None:
    """Which layers get a sparsity pattern, and why the others do not. Prints nothing if none does."""
    layers = plan.get("layers", ())
    if not layers:
        return
    types = ["type"] if any("precision" in layer for layer in layers) else []
    table = Table("layer", "pattern", "zeros", *types, "why", title="layers", title_justify="left")
    for layer in layers:
        zeros = units.share(layer["level"]) if layer["level"] else "–"
        own = [layer.get("precision", "–")] if types else []
        table.add_row(Text(layer["node"]), Text(layer["pattern"]), zeros, *own, Text(layer["why"]))
    console.print(table)


def print_layer_times(console: Console, layers: Sequence[LayerTiming]) -> None:
    """Every layer of a compiled model: time, rate on the non-zeros and its share of what the processor can do."""
    table = Table("layer", "pattern", title="layers", title_justify="left")
    for heading in ("density", "dense", "as it is", "GFLOP/s on non-zeros", "of peak"):
        table.add_column(heading, justify="right")
    for layer in layers:
        times = ("–" if us is None else units.ms(us / 1e3) for us in (layer.dense_us, layer.sparse_us))
        rate = "–" if layer.gflops_nonzero is None else f"{layer.gflops_nonzero:.1f}"
        peak = "–" if layer.peak_share is None else units.share(layer.peak_share)
        table.add_row(Text(layer.name), layer.pattern, units.share(layer.density), *times, rate, peak)
    console.print(table)


def print_patterns(console: Console, verification: Document) -> None:
    """What was counted in the weights that have a sparsity pattern. Prints nothing if there is none."""
    patterns = verification.get("patterns")
    if not patterns:
        return
    layers = patterns["layers"]
    units_ = sum(layer["units"] for layer in layers)
    valid = sum(layer["valid"] for layer in layers)
    names = ", ".join(dict.fromkeys(layer["pattern"] for layer in layers))
    console.print(
        Text(
            f"{len(layers)} layers are {names}: {valid} of {units_} units valid, "
            f"{units.share(patterns['zeros'])} of all weights are zero."
        )
    )
    order = patterns.get("permutation")
    if order:
        groups = order["groups"]
        kept = [units.share(sum(group[key] for group in groups) / len(groups)) for key in ("kept_before", "kept_after")]
        console.print(
            Text(
                f"{len(groups)} groups were reordered for it: {kept[0]} → {kept[1]} of the saliency kept; "
                f"before zeros that changes nothing ({units.error(order['float32_max_rel'])} in float32)."
            )
        )


def print_tensorrt(console: Console, verification: Document) -> None:
    """What a package for sparse tensor cores holds, and whether it was run. Prints nothing for other targets."""
    record = verification.get("tensorrt")
    if not record:
        return
    left, planned = len(record["left_dense"]), len(record["planned_sparse"])
    proved = record["weights_proved"]
    told = f"{planned} layers are planned for sparse kernels, {left} left dense; {proved} weights proved."
    if not record["executed"]:
        console.print(Text(f"{told} Not executed here: nothing is known about kernels or speed."))
        return
    kernels = record["kernels"]
    chosen = kernels.get("chosen", len(kernels["sparse"]))
    outcome = f"{chosen} of {kernels.get('found', planned)} eligible layers run on sparse kernels"
    kept = "" if chosen else ": TensorRT kept dense"
    console.print(Text(f"{told} On {kernels['gpu']} {outcome}{kept}."))


def print_compensation(console: Console, verification: Document) -> None:
    """How each layer made up for its lost inputs. Prints nothing if there was no compensation."""
    layers = verification.get("compensation") or ()
    if not layers:
        return
    table = Table("layer", "method", title="compensation (error on held-out data)", title_justify="left")
    for heading in ("before", "after", "change"):
        table.add_column(heading, justify="right")
    for layer in layers:
        before, after = layer["error_before"], layer["error_after"]
        style = _STYLE[None if before == after else after < before]
        change = Text(units.change(before, after), style=style)
        table.add_row(Text(layer["layer"]), Text(layer["method"]), units.error(before), units.error(after), change)
    console.print(table)


def print_recovery(console: Console, verification: Document) -> None:
    """What training against the dense model did, in a sentence before 8 bits and one in them; nothing without any."""
    _print_training(console, verification.get("recovery"), "Training")
    _print_training(console, (verification.get("quantisation") or {}).get("recovery"), "Training in 8 bits")


def _print_training(console: Console, record: Document | None, what: str) -> None:
    """And why it ended early where it did."""
    if not record:
        return
    steps = sum(run["done"] for run in record["runs"])
    rounds = record.get("rounds")
    outcome = _outcome(record) if not rounds else ", then ".join(f"{own['name']}: {_outcome(own)}" for own in rounds)
    precision = record.get("precision", "fp32")
    how = record["method"] if precision == "fp32" else f"{record['method']}, {precision}"
    what = f"{what} ({how}): {steps} steps on {record['samples']} samples in {record['minutes']:g} min"
    ends = early_ends(record["runs"])
    console.print(Text(f"{what}, held-out error of the outputs {outcome}.{ends and ' '}{ends}"))


def _outcome(record: Document) -> str:
    """Errors and the metric before and after one training, and whether it was taken back."""
    if not record.get("trained", True):
        return f"{units.error(record['error_before'])}, not trained"
    after, judged = record.get("error_after"), record.get("metric")
    errors = f"{units.error(record['error_before'])} → {'not finite' if after is None else units.error(after)}"
    number = "" if judged is None else f", {judged['name']} {judged['before']:.5g} → {judged['after']:.5g}"
    why = "did not help" if judged is None else "harmed"
    return f"{errors}{number}" + ("" if record["kept"] else f"; it {why} and was taken back")
