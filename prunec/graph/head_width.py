"""The groups that exist only where splits are cut along their inner axis: the widths of heads."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from prunec.graph.analysis import Analysis, analyse
from prunec.graph.groups import Group


def analyse_widths(model: ir.Model) -> Analysis:
    """The analysis with `split="inner"`, its groups without those that `split="outer"` finds as well."""
    whole = {_signature(group) for group in analyse(model).groups}
    inner = analyse(model, split="inner")
    return replace(inner, groups=tuple(group for group in inner.groups if _signature(group) not in whole))


def _signature(group: Group) -> tuple[object, ...]:
    return tuple(
        (m.tensor, m.node, m.input_index, m.axis, m.role, m.length, m.places.tobytes(), m.channels.tobytes())
        for m in group.members
    )
