"""Where numbers change between float32 and 8 bits once every layer has its own data type.

A value between two layers, with nothing but clips and `placement.CARRIERS` on the way, is converted where one of them
computes in 8 bits and the other does not; one that anything else makes or reads wherever its layer computes in 8 bits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from prunec.frontend.input_shapes import apply_input_shapes, complete_shapes
from prunec.graph.shapes import dims, is_constant
from prunec.passes.quantise.placement import CARRIERS, CLIPS, quantisable

_THROUGH = CARRIERS | CLIPS


@dataclass(frozen=True)
class Border:
    """Between two layers by node name; None stands for what computes in float32 whatever is chosen."""

    maker: str | None
    reader: str | None
    elements: float

    def is_crossed(self, in_8_bits: Collection[str]) -> bool:
        return (self.maker in in_8_bits) != (self.reader in in_8_bits)


def borders(model: ir.Model, shapes: Mapping[str, Sequence[int]] | None = None) -> tuple[Border, ...]:
    """All of them, in graph order. `shapes`: of the inputs; axes that stay open count as one.

    What several layers make together (an addition) is shared out among them.
    """
    static = model.clone()
    apply_input_shapes(static, complete_shapes(static, shapes or {}))
    static = ShapeInferencePass()(static).model
    layers = {layer.name: layer for layer in quantisable(static)}
    found = []
    for name, layer in layers.items():
        makers = list(dict.fromkeys(_makers(layer.data, layers)))
        found += [Border(maker, name, _elements(layer.data) / len(makers)) for maker in makers]
    for name, layer in layers.items():
        value = layer.node.outputs[0]
        if any(_is_for_others(value, layers)):
            found.append(Border(name, None, _elements(value)))
    return tuple(found)


def crossed(found: Sequence[Border], in_8_bits: Collection[str]) -> float:
    """Elements that are converted in one run."""
    return sum(border.elements for border in found if border.is_crossed(in_8_bits))


def _makers(value: ir.Value, layers: Collection[str]) -> Iterator[str | None]:
    node = value.producer()
    if node is not None and node.name in layers:
        yield str(node.name)
    elif node is None or node.op_type not in _THROUGH:
        yield None
    else:
        sources = node.inputs if node.op_type in ("Add", "Concat") else node.inputs[:1]
        for source in sources:
            if source is not None and not is_constant(source):
                yield from _makers(source, layers)


def _is_for_others(value: ir.Value, layers: Collection[str]) -> Iterator[bool]:
    """Whether a reader of `value`, directly or through carriers, is no layer."""
    yield value.is_graph_output()
    for use in value.uses():
        if use.node.name in layers:
            continue
        if use.node.op_type in _THROUGH:
            yield from _is_for_others(use.node.outputs[0], layers)
        else:
            yield True


def _elements(value: ir.Value) -> float:
    found = 1.0
    for length in dims(value) or ():
        found *= length if isinstance(length, int) else 1
    return found
