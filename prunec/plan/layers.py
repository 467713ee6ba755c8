"""Which layers get a sparsity pattern, at which level, and why the others stay dense."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from prunec.catalog import unknown_name
from prunec.graph.cost import node_macs
from prunec.passes.compensate.find import WEIGHTED, find_layers
from prunec.passes.compensate.layers import ConvLayer, Layer
from prunec.passes.sparsify import LayerPattern, views
from prunec.passes.sparsify.embeddings import TABLE, Embedding
from prunec.passes.sparsify.views import Prunable, prunable_layers
from prunec.patterns import Pattern
from prunec.plan.plan import LayerPlan
from prunec.plan.select import matches

DENSE = "dense"
STEM_CHANNELS = 4
"""A first convolution of at most this many input channels is the stem: images, audio."""
NORMS = frozenset(
    {"LayerNormalization", "SkipLayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization",
     "SkipSimplifiedLayerNormalization", "GroupNormalization", "InstanceNormalization", "Sqrt"}
)  # fmt: skip
"""A layer in front of one of these is no head (`Sqrt`: of a norm in its parts)."""


@dataclass(frozen=True)
class TargetRules:
    """What a target does with layers; values are reasons, by node name.

    `impossible` ones stay dense whatever is asked for, `unprofitable` ones unless `include` names them.
    """

    impossible: Mapping[str, str] = field(default_factory=dict)
    unprofitable: Mapping[str, str] = field(default_factory=dict)


ANY_LAYER = TargetRules()


def choose_layers(
    model: ir.Model,
    pattern: Pattern,
    level: float,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    rules: TargetRules = ANY_LAYER,
) -> tuple[LayerPlan, ...]:
    """Every layer of the canonical (or cut) `model` in graph order: what `pattern` fits gets it.

    Stem, depthwise convolutions and head stay dense unless `include` names them; with `include` all others do too.
    Embedding tables have to be named by more than `*`. `rules` are the target's.

    Raises:
        PrunecError PC206: a name of `include` or `exclude` matches no layer.
    """
    skipped = find_layers(model)[1]
    nodes = {node.name or "": node for node in model.graph}
    reasons = {skip.node: skip.reason for skip in skipped}
    own = prunable_layers(model)
    names = [name for name, node in nodes.items() if name in own or (name in reasons and node_macs(node))]
    tensors = {name: _tensor(nodes[name], own.get(name)) for name in names}
    for wanted in (*include, *exclude):
        if wanted.strip("*") and not any(matches(name, wanted) or matches(tensors[name], wanted) for name in names):
            raise unknown_name("PC206", "layer", wanted, names)

    named_tables = [wanted for wanted in include if wanted.strip("*")]

    def named(name: str, patterns: Sequence[str]) -> bool:
        return any(matches(name, p) or matches(tensors[name], p) for p in patterns)

    def decide(name: str) -> tuple[str | None, str]:
        """Why it stays dense, or None; why it does not."""
        if name not in own:
            return reasons[name], ""
        if named(name, exclude):
            return "--exclude", ""
        refusal = views.refusal(own[name], pattern) or rules.impossible.get(name)
        if named(name, named_tables if isinstance(own[name], Embedding) else include):
            return refusal, "--include"
        if include and not isinstance(own[name], Embedding):
            return "not named by --include", ""
        return _default_reason(own[name]) or refusal or rules.unprofitable.get(name), "asked for"

    found = []
    for name in names:
        dense, why = decide(name)
        entry = (pattern.name, level, why) if dense is None else (DENSE, 0.0, dense)
        found.append(LayerPlan(node=name, tensor=tensors[name], pattern=entry[0], level=entry[1], why=entry[2]))
    return tuple(found)


def refusals(model: ir.Model, layers: Mapping[str, LayerPattern], rules: TargetRules = ANY_LAYER) -> dict[str, str]:
    """Why layers of a plan cannot have the pattern that stands there, by node name."""
    own = prunable_layers(model)
    found = {}
    for name, wanted in layers.items():
        if name not in own:
            found[name] = "there is no such layer"
            continue
        fixed = wanted.pattern.fixed_level
        refusal = views.refusal(own[name], wanted.pattern) or rules.impossible.get(name)
        if refusal is None and fixed is not None and abs(fixed - wanted.level) > 1e-9:
            refusal = f"{wanted.pattern} removes {fixed:g} of the weights, not {wanted.level:g}"
        if refusal is not None:
            found[name] = refusal
    return found


def _tensor(node: ir.Node, layer: Prunable | None) -> str:
    index = TABLE if isinstance(layer, Embedding) else layer.weight_index if isinstance(layer, Layer) else 1
    value = node.inputs[index]
    return "" if value is None else value.name or ""


def _default_reason(layer: Prunable) -> str | None:
    if isinstance(layer, Embedding):
        return "embedding: rows are looked up; --include its name gives it zeros"
    if isinstance(layer, ConvLayer):
        groups, _, _, channels = layer.matrix().shape
        if groups > 1 and channels == 1:
            return "depthwise: one input channel an output"
        if groups == 1 and channels <= STEM_CHANNELS and _is_first(layer.node):
            return f"stem: {channels} input channel{'s' if channels > 1 else ''}"
    return "head: no layer comes after it" if _is_last(layer.node) else None


def _is_first(node: ir.Node) -> bool:
    """No layer between the inputs and here."""
    return not any(_is_layer(earlier) for earlier in _reached(node, _before))


def _is_last(node: ir.Node) -> bool:
    """No further layer or normalisation between here and the outputs."""
    return not any(_is_layer(later) or later.op_type in NORMS for later in _reached(node, _after))


def _is_layer(node: ir.Node) -> bool:
    if node.op_type not in WEIGHTED:
        return False
    return any(value is not None and value.is_initializer() and len(value.shape or ()) > 1 for value in node.inputs)


def _after(node: ir.Node) -> Iterator[ir.Node]:
    return (use.node for value in node.outputs for use in value.uses())


def _before(node: ir.Node) -> Iterator[ir.Node]:
    return (made for value in node.inputs if value is not None and (made := value.producer()) is not None)


def _reached(node: ir.Node, step: Callable[[ir.Node], Iterator[ir.Node]]) -> Iterator[ir.Node]:
    """Every node that `step` leads to, once, from `node` on."""
    seen: set[ir.Node] = set()
    waiting = list(step(node))
    while waiting:
        found = waiting.pop()
        if found not in seen:
            seen.add(found)
            yield found
            waiting += step(found)
