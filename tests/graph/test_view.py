"""The networkx view of the groups, and DOT."""

from __future__ import annotations

from prunec.graph.view import group_view, to_dot
from tests.graph.builder import Builder
from tests.graph.checks import prepare


def test_layers_and_groups_are_joined_as_they_make_and_use_channels() -> None:
    b = Builder()
    b.output(b.conv(b.relu(b.conv(b.input("x", [1, 3, 8, 8]), 16)), 8))
    _, analysis = prepare(b.model())
    view = group_view(analysis)
    first, second = (group.producers()[0].node for group in analysis.groups)
    assert view.has_edge(("layer", first), ("group", "g0")) and view.has_edge(("group", "g0"), ("layer", second))
    assert view.nodes["group", "g0"] == {"size": 16, "cost_share": analysis.groups[0].cost_share, "pinned": None}
    assert view.nodes["group", "g1"]["pinned"].startswith("PC102: ")
    assert {data["role"] for *_, data in view.edges(data=True)} == {"producer", "consumer", "carrier"}


def test_dot_survives_hostile_names() -> None:
    b = Builder()
    b.output(b.conv(b.relu(b.conv(b.input("x", [1, 3, 8, 8]), 16)), 8))
    _, analysis = prepare(b.model())
    dot = to_dot(analysis, 'a"b\\c\nd')
    assert dot.splitlines()[0] == 'digraph "a\\"b\\\\c\\nd" {'
    assert all(line.count('"') % 2 == 0 for line in dot.splitlines()[1:])
