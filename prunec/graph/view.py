"""The groups of a model as a networkx graph, and that as DOT for Graphviz.

Two kinds of vertices, layers and groups; an edge runs from a layer to the group whose channels it makes, and from a
group to the layers that use (or only carry) its channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunec.graph import Analysis

if TYPE_CHECKING:
    import networkx

_STYLES = {"producer": "solid", "consumer": "solid", "carrier": "dashed"}


def group_view(analysis: Analysis) -> networkx.MultiDiGraph:
    """Vertices ("layer", name) and ("group", id); vertices and edges carry what `to_dot` shows."""
    import networkx

    view = networkx.MultiDiGraph()
    for group in analysis.groups:
        vertex = ("group", group.id)
        reason = None if group.pinned is None else f"{group.pinned.code}: {group.pinned.reason}"
        view.add_node(vertex, size=group.size, cost_share=group.cost_share, pinned=reason)
        for member in dict.fromkeys((m.node, m.tensor, m.axis, m.role) for m in group.members):
            node, tensor, axis, role = member
            layer = ("layer", node)
            view.add_node(layer)
            ends = (layer, vertex) if role == "producer" else (vertex, layer)
            view.add_edge(*ends, tensor=tensor, axis=axis, role=role)
    return view


def to_dot(analysis: Analysis, name: str = "groups") -> str:
    """Graphviz source; pinned groups are grey."""
    view = group_view(analysis)
    lines = [f"digraph {_quoted(name)} {{", "  rankdir=LR;", '  node [fontname="sans-serif"];']
    for (kind, label), data in view.nodes(data=True):
        if kind == "layer":
            lines.append(f"  {_vertex(kind, label)} [shape=box, label={_quoted(label)}];")
            continue
        text = f"{label}\n{data['size']} channels\n{data['cost_share']:.1%} of the MACs"
        look = "style=filled, fillcolor=lightgrey, " if data["pinned"] else ""
        text += f"\n{data['pinned']}" if data["pinned"] else ""
        lines.append(f"  {_vertex(kind, label)} [shape=ellipse, {look}label={_quoted(text)}];")
    for start, end, data in view.edges(data=True):
        label = _quoted(f"{data['tensor']}[{data['axis']}]")
        lines.append(f"  {_vertex(*start)} -> {_vertex(*end)} [style={_STYLES[data['role']]}, label={label}];")
    return "\n".join([*lines, "}", ""])


def _vertex(kind: str, label: str) -> str:
    return _quoted(f"{kind}:{label}")


def _quoted(text: str) -> str:
    """A DOT string: backslashes and quotes escaped, line breaks as \\n."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
