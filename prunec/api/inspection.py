"""`inspect`: what is in a model, and which of its channels must live or die together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from prunec.api.opening import InputShapes, Model, Opened, open_model
from prunec.api.results import BlockInfo, GroupInfo, Inspection, MemberInfo, PinInfo, ValueInfo, WarningInfo
from prunec.api.stages import inspected
from prunec.graph import Group, Pin
from prunec.graph.branches import find_blocks
from prunec.graph.cost import model_macs, parameter_count
from prunec.package.manifest import describe_values
from prunec.plan.structures import DEFAULT_STRUCTURES, parse_structures


def inspect(
    model: Model,
    *,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    input_shapes: InputShapes | None = None,
    structures: str | Sequence[str] | None = None,
) -> Inspection:
    """Channel groups of an ONNX file or a torch module, with what pins them and what they cost.

    `structures` as for `plan`: with "residual" the streams under norms are free, with "experts" whole experts under
    their gates; "head-width" lists the widths of heads instead, "depth" the blocks that can be removed.

    >>> [group.id for group in inspect("resnet18.onnx").groups if group.pinned is None]  # doctest: +SKIP
    ['g0', 'g1', …]

    Raises:
        PrunecError PC0xx: the file cannot be read or is not supported; PC216: structures that are not.
    """
    opened = open_model(model, input_shapes, example_inputs=example_inputs, dynamic_shapes=dynamic_shapes)
    return describe(opened, structures)


def describe(opened: Opened, structures: str | Sequence[str] | None = None) -> Inspection:
    """The inspection of a model that is open already."""
    graph = opened.canonical.graph
    wanted = DEFAULT_STRUCTURES if structures is None else parse_structures(structures)
    blocks = find_blocks(opened.canonical) if "depth" in wanted else []
    return Inspection(
        model=opened.source.path.name,
        sha256=opened.source.sha256,
        nodes=sum(1 for _ in graph),
        operators=dict(sorted(Counter(_operator(node) for node in graph).items())),
        parameters=parameter_count(opened.canonical),
        macs=model_macs(opened.canonical),
        inputs=_values(list(graph.inputs)),
        outputs=_values(list(graph.outputs)),
        groups=tuple(group_info(group) for group in inspected(opened, wanted).groups),
        blocks=tuple(BlockInfo(name=b.name, kind=b.kind, input=b.input, output=b.output) for b in blocks),
        warnings=tuple(WarningInfo.of(found) for found in opened.warnings),
    )


def group_info(group: Group) -> GroupInfo:
    """A group as users see it. A tensor axis that one node uses twice is listed once."""
    members = (MemberInfo(tensor=m.tensor, axis=m.axis, node=m.node, role=m.role) for m in group.members)
    return GroupInfo(
        id=group.id,
        size=group.size,
        kind=group.kind,
        members=tuple(dict.fromkeys(members)),
        cost_share=group.cost_share,
        pinned=pin_info(group.pinned),
    )


def pin_info(pin: Pin | None) -> PinInfo | None:
    return None if pin is None else PinInfo(code=pin.code, node=pin.node, reason=pin.reason)


def _operator(node: ir.Node) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


def _values(values: list[ir.Value]) -> tuple[ValueInfo, ...]:
    return tuple(ValueInfo(name=r.name, dtype=r.dtype, shape=r.shape) for r in describe_values(values))
