"""`prunec explain`: one layer, and what of it can be cut; what a target would do with all; or what a plan decided."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from prunec.cli.answer import Answer
from prunec.cli.options import InputShape, Json, Structures, input_shapes

if TYPE_CHECKING:
    from rich.console import Console

    from prunec.api.results import Decision, Explanation, PlanExplanation, TargetExplanation
    from prunec.plan.plan import StepPlan


def explain(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="An ONNX file, a plan, or a package.", show_default=False)
    ],
    layer: Annotated[
        str | None, typer.Argument(metavar="LAYER", help="Name of a node, tensor or group.", show_default=False)
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", help="What this target would do with LAYER, or with all layers.")
    ] = None,
    structures: Structures = None,
    input_shape: InputShape = None,
    json: Json = False,
) -> Answer:
    """Say which channels pass through LAYER of MODEL, with what they are coupled, and why they can or cannot be cut.

    prunec explain model.onnx --target tensorrt-2:4 says which layers TensorRT can run sparse, and why not the others.

    prunec explain plan.json, or a package, says of every group and layer what was decided and why.
    """
    from prunec.api import explanation
    from prunec.api.results import PlanExplanation, TargetExplanation

    shapes = input_shapes(input_shape)
    found = explanation.explain(model, layer, target=target, input_shapes=shapes, structures=structures)
    if isinstance(found, TargetExplanation):
        layers = found
        return Answer(found.to_json(), lambda out: show_target(out, layers))
    if isinstance(found, PlanExplanation):
        decided = found
        return Answer(found.to_json(), lambda out: show_plan(out, decided))
    one = found
    return Answer(found.to_json(), lambda out: show(out, one))


def show_target(out: Console, found: TargetExplanation) -> None:
    """A table of the layers, and the numbers in one sentence."""
    from rich.table import Table
    from rich.text import Text

    from prunec.api.target_list import TARGETS
    from prunec.report import units

    table = Table("layer", "operator")
    for heading in ("inputs", "outputs", "multiply-accumulates"):
        table.add_column(heading, justify="right")
    pattern = next(target.patterns[0] for target in TARGETS if target.name == found.target)
    for heading in (f"{pattern} now", "can be", "expected faster", "why not", "what to change"):
        table.add_column(heading, overflow="fold")
    for row in found.layers:
        inputs = "–" if row.inputs is None else str(row.inputs) + (f" × {row.positions}" if row.positions > 1 else "")
        outputs = "–" if row.outputs is None else str(row.outputs)
        answers = ("yes" if answer else "no" for answer in (row.sparse_now, row.eligible, row.worthwhile))
        reasons = (Text(row.why_not or ""), Text(row.change or ""))
        table.add_row(Text(row.node), row.op_type, inputs, outputs, units.count(row.macs), *answers, *reasons)
    out.print(table)
    numbers = f"{found.eligible} of {len(found.layers)} layers can be {pattern} for {found.target}"
    out.print(f"{numbers}, {found.worthwhile} are expected to be faster so, {found.sparse_now} are {pattern} already.")


def show_plan(out: Console, found: PlanExplanation) -> None:
    """A table of the decisions; what a step to either side would change is in brackets behind them."""
    from rich.table import Table
    from rich.text import Text

    from prunec.report import units

    has_groups = any(one.what == "channels" for one in found.decisions)
    table = Table("group or layer", "what", title=f"{found.target}, {found.budget}", title_justify="left")
    if has_groups:
        table.add_column("made by", overflow="fold")
    for heading in ("kept", "predicted loss", "time saved", "milder", "deeper"):
        table.add_column(heading, justify="right")
    has_types = any(one.precision is not None for one in found.decisions)
    for heading in ("computes in", "8 bits alone") if has_types else ():
        table.add_column(heading, justify="right")
    table.add_column("why", overflow="fold")
    for one in found.decisions:
        numbers = ("–" if one.loss is None else units.error(one.loss), _share(one.saved))
        steps = (_step(step, one) for step in (one.milder, one.deeper))
        types = _types(one) if has_types else ()
        made_by = [Text(_few(one.tensors))] if has_groups else []
        table.add_row(
            Text(one.name), one.what, *made_by, _kept(one.kept, one.of), *numbers, *steps, *types, Text(one.why)
        )
    out.print(table)
    if found.losses is not None and all(one.loss is None for one in found.decisions):
        out.print(
            Text(f"Layers were compared by what the outputs lose ({found.losses}); only plans for a time keep it.")
        )
    _show_whole(out, found)


def _show_whole(out: Console, found: PlanExplanation) -> None:
    """What was measured of the whole plan, beside what its parts were predicted to do."""
    from rich.text import Text

    from prunec.cli.plan import compared, drops_by

    if found.time is None:
        return
    low, high = found.time.ci95
    saved = f"{1 - found.time.share:.1%} of the dense model's time saved"
    if found.time.modelled:
        out.print(Text(f"Modelled for all together, for {found.time.machine}: {saved}. Nothing was measured."))
    else:
        known = f"{saved} (95 % interval {1 - high:.1%} to {1 - low:.1%}), {1 - found.time.predicted:.1%} predicted"
        more = "Lines do not add up to that: what one saves depends on the others."
        out.print(Text(f"Measured for all together: {known}. {more}"))
    if found.allocation not in (None, "loss"):
        out.print(Text(f"Losses: shares of all zeros, as {found.allocation} compares no errors."))
    else:
        how = "" if found.losses is None else f", by {found.losses}"
        out.print(Text(f"Losses: squared error of the outputs, relative, of that line alone{how}."))
    if found.contest:
        out.print(Text(f"{compared(found.contest, found.allocation, found.scope)}."))
    if found.drop is not None:
        out.print(Text(f"Judged for all together: {drops_by(found.drop)}."))


def _few(tensors: tuple[str, ...]) -> str:
    """The first names, and how many more there are."""
    first, more = ", ".join(tensors[:2]), len(tensors) - 2
    return f"{first} and {more} more" if more > 0 else first


def _types(one: Decision) -> tuple[str, str]:
    """What the layer computes in, and what 8 bits without zeros do to its loss and its time."""
    if one.quantised is None:
        return one.precision or "–", "–"
    return one.precision or "–", f"loss {one.quantised.loss:+.2g}, time {-one.quantised.saved:+.2%}"


def _kept(kept: float, of: float) -> str:
    return f"{kept:.1%}" if of == 1 else f"{kept:g} of {of:g}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2%}"


def _step(step: StepPlan | None, one: Decision) -> str:
    if step is None:
        return "–"
    kind = "" if step.precision in (None, one.precision) else f" {step.precision}"
    return f"{_kept(step.kept, one.of)}{kind}: loss {step.loss:+.2g}, time {step.time:+.2%}"


def show(out: Console, found: Explanation) -> None:
    """What the layer is, a table of its groups, and the verdict in sentences."""
    from rich.table import Table
    from rich.text import Text

    from prunec.report import units

    cost = f"{units.count(found.macs)} multiply-accumulates ({units.share(found.macs_share)} of the model)"
    shapes = f"{', '.join(found.input_shapes)} → {', '.join(found.output_shapes)}"
    out.print(Text(f"{found.layer}: {found.op_type}, {shapes}"))
    out.print(Text(f"{units.count(found.parameters)} parameters, {cost}"))
    if found.parts:
        table = Table("group", "this layer")
        table.add_column("channels", justify="right")
        for heading in ("through", "made together with", "used by", "pinned by"):
            table.add_column(heading, overflow="fold")
        for part in found.parts:
            pinned = "" if part.pinned is None else f"{part.pinned.node} [{part.pinned.code}]"
            lists = (", ".join(names) for names in (part.tensors, part.coupled_with, part.used_by))
            table.add_row(part.group, part.does, str(part.size), *(Text(text) for text in lists), Text(pinned))
        out.print(table)
    for sentence in found.verdict:
        out.print(Text(sentence))
