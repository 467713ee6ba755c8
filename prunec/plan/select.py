"""Which groups may be cut: the free ones, as the user's patterns narrow them.

A pattern is a node name, a tensor name or a group id, literal or with * and ? (fnmatch). `include` keeps the groups
that a matching layer *makes*; `exclude` leaves out every group that a matching layer makes, consumes or carries, so an
excluded layer keeps all its weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import onnx_ir as ir

from prunec.catalog import unknown_name
from prunec.diagnostics import PrunecError
from prunec.graph import Analysis, Group, Member


@dataclass(frozen=True)
class Selection:
    """`groups` may be cut; `excluded` are free too, but the user keeps them."""

    groups: tuple[Group, ...]
    excluded: tuple[Group, ...]


def select_groups(
    model: ir.Model, analysis: Analysis, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Selection:
    """Free groups of more than one channel, split by the patterns.

    Raises:
        PrunecError PC206: a pattern matches nothing in the model, or includes only what cannot be cut.
    """
    free = tuple(g for g in analysis.groups if g.pinned is None and g.size > 1)
    known = {node.name or "" for node in model.graph} | set(model.graph.initializers) | {g.id for g in analysis.groups}
    for pattern in (*include, *exclude):
        if not any(matches(name, pattern) for name in known):
            raise unknown_name("PC206", "layer, tensor or group", pattern, known)
    for pattern in include:
        if not any(_made_by(g, pattern) for g in free):
            raise _cannot_cut(pattern, analysis)
    wanted = [g for g in free if not include or any(_made_by(g, p) for p in include)]
    kept = {g.id for g in wanted if any(_touches(g, p) for p in exclude)}
    outside = {g.id for g in free} - {g.id for g in wanted}
    chosen = tuple(g for g in wanted if g.id not in kept)
    return Selection(chosen, tuple(g for g in free if g.id in kept | outside))


def matches(name: str, pattern: str) -> bool:
    """Literal names win over patterns: exported names may contain brackets."""
    return name == pattern or fnmatchcase(name, pattern)


def _any(members: Iterable[Member], pattern: str) -> bool:
    return any(matches(m.node, pattern) or matches(m.tensor, pattern) for m in members)


def _made_by(group: Group, pattern: str) -> bool:
    return matches(group.id, pattern) or _any(group.producers(), pattern)


def _touches(group: Group, pattern: str) -> bool:
    return matches(group.id, pattern) or _any(group.members, pattern)


def _cannot_cut(pattern: str, analysis: Analysis) -> PrunecError:
    pins = [g.pinned for g in analysis.groups if g.pinned is not None and _made_by(g, pattern)]
    reason = f"its channels are pinned by {pins[0].node}: {pins[0].reason}" if pins else "it makes no channels to cut"
    message = f"nothing that {pattern!r} names can be cut: {reason}"
    return PrunecError("PC206", message, where=pattern, hint="prunec inspect lists the groups")
