"""Einsum: each letter is an axis; a letter that is summed over consumes channels.

A letter only a constant has makes new channels (if it is in the output); one that activations have unites their ids.
Equations with an ellipsis or a repeated letter in one term are pinned.
"""

from __future__ import annotations

import onnx_ir as ir

from prunec.graph.flow import Axes, Flow, Ids, Role
from prunec.graph.rules.base import KeepsAttributes, attribute, outputs_untracked
from prunec.graph.shapes import dims
from prunec.graph.weights import is_weight


def terms(node: ir.Node) -> tuple[list[str], str]:
    """Input terms and output term; an implicit output has the letters that occur once, in order."""
    equation = str(attribute(node, "equation")).replace(" ", "")
    left, arrow, right = equation.partition("->")
    inputs = left.split(",")
    letters = left.replace(",", "")
    return inputs, right if arrow else "".join(sorted(c for c in set(letters) if letters.count(c) == 1))


class Einsum(KeepsAttributes):
    def couple(self, node: ir.Node, flow: Flow) -> None:
        inputs, output = terms(node)
        if "." in "".join(inputs) or any(len(set(term)) != len(term) for term in [*inputs, output]):
            flow.pin_inputs(node, "PC101", "this form of Einsum has no channel rule")
            outputs_untracked(node, flow)
            return
        letters = {letter: self._letter(node, flow, letter, inputs) for letter in dict.fromkeys("".join(inputs))}
        for index, (value, term) in enumerate(zip(node.inputs, inputs, strict=True)):
            if is_weight(value):
                roles = [self._role(letter, index, node, inputs, output) for letter in term]
                flow.use(node, index, [letters[letter] for letter in term], roles)
        self._reduce(node, flow, inputs, output)
        flow.set(node.outputs[0], [letters[letter] for letter in output])

    def _letter(self, node: ir.Node, flow: Flow, letter: str, inputs: list[str]) -> Ids:
        """Ids of one letter, united over all activations that have it."""
        found: Axes = []
        length = None
        for value, term in zip(node.inputs, inputs, strict=True):
            if letter in term:
                axis = term.index(letter)
                length = (dims(value) or ())[axis]
                if not is_weight(value):
                    found.append(flow.of(value)[axis])
        if not found:
            return flow.fresh(length) if isinstance(length, int) else None
        base = next((ids for ids in found if ids is not None), None)
        for ids in found:
            if base is not None and ids is None:
                flow.pin(base, "PC103", node, f"meets an axis ({letter}) that cannot be cut")
            elif base is not None and ids is not None:
                flow.unite(base, ids)
        return base

    def _role(self, letter: str, index: int, node: ir.Node, inputs: list[str], output: str) -> Role:
        others = [v for i, v in enumerate(node.inputs) if i != index and letter in inputs[i]]
        if letter not in output:
            return "consumer"
        return "carrier" if others else "producer"

    def _reduce(self, node: ir.Node, flow: Flow, inputs: list[str], output: str) -> None:
        weight = next((i for i, value in enumerate(node.inputs) if is_weight(value)), None)
        for index, (value, term) in enumerate(zip(node.inputs, inputs, strict=True)):
            if is_weight(value):
                continue
            for axis, letter in enumerate(term):
                if letter not in output:
                    has = weight is not None and letter in inputs[weight]
                    place = (weight, inputs[weight].index(letter)) if has and weight is not None else None
                    flow.reduce(node, index, axis, flow.of(value)[axis], place)
