"""Where numbers change between the data types: elements of every value between layers, by hand."""

from __future__ import annotations

from prunec.passes.canonicalise import canonicalise
from prunec.passes.quantise.borders import Border, borders, crossed
from tests.graph.builder import Builder


def test_a_chain_with_clips_and_pools_between() -> None:
    b = Builder(0)
    x = b.relu(b.conv(b.input("x", [1, 3, 8, 8]), 16, 3))
    b.output(b.conv(x, 8, 1))
    model = canonicalise(b.model())
    first, second = (node.name for node in model.graph if node.op_type == "Conv")
    found = borders(model)
    assert found == (
        Border(None, first, 3 * 64.0), Border(first, second, 16 * 64.0), Border(second, None, 8 * 64.0)
    )  # fmt: skip
    assert crossed(found, {first, second}) == 11 * 64 and crossed(found, ()) == 0
    assert crossed(found, {first}) == 19 * 64 and crossed(found, {second}) == 24 * 64


def test_an_addition_is_shared_out_among_what_makes_it() -> None:
    b = Builder(0)
    x = b.relu(b.conv(b.input("x", [1, 3, 8, 8]), 16, 3))
    y = b.conv(x, 16, 3)
    b.output(b.conv(b.relu(b.op("Add", [x, y])), 8, 1))
    model = canonicalise(b.model())
    stem, body, head = (node.name or "" for node in model.graph if node.op_type == "Conv")
    into_head = [border for border in borders(model) if border.reader == head]
    assert sorted(str(border.maker) for border in into_head) == sorted([stem, body])
    assert [border.elements for border in into_head] == [8 * 64.0] * 2


def test_what_has_no_form_in_8_bits_is_a_border_for_every_layer_in_8_bits() -> None:
    b = Builder(0)
    x = b.conv(b.input("x", [1, 3, 8, 8]), 16, 3)
    b.output(b.conv(b.op("Sigmoid", [x]), 8, 1))
    model = canonicalise(b.model())
    first, second = (node.name or "" for node in model.graph if node.op_type == "Conv")
    found = borders(model)
    assert Border(first, None, 16 * 64.0) in found and Border(None, second, 16 * 64.0) in found
    assert crossed(found, {first, second}) == (3 + 16 + 16 + 8) * 64
