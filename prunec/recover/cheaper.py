"""The same function in fewer passes over memory: what a network on a CPU is trained as.

    x·clip(x + 3, 0, 6)/6, in either order       hardswish
    x·(1 + erf(x/√2))·½, in any order            gelu
    x·s + b of single numbers                    one addition with a factor
    clip between numbers                         hardtanh, whose gradient is one pass instead of four
    hardtanh and relu of what only they read     in place, where the gradient of what made it does not need it
    4-axis weights of convolutions               channels last, which the convolutions of torch follow

Values agree up to rounding; gradients at the very corner of a clip are 0 instead of 1. Channels last is what oneDNN has
vector kernels for: the gradient of a depthwise 3×3 convolution of stride 2 takes an eighth of the time
(96 channels of 112×112, four samples, one AVX2 core; whole steps are timed by `benchmarks.recovery_step`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import fx
from torch.nn import functional

from prunec.torch.operators.conv import conv
from prunec.torch.operators.elementwise import clip, div

Pattern: TypeAlias = Any
"""A function with the patterns of its arguments; "x" for any value, a number, "s" or "b" for any single number."""
Found: TypeAlias = dict[str, Any]

_COMMUTE = frozenset({torch.add, torch.mul})
_CLOSE = 1e-6


def scaled(x: Any, factor: float, offset: Any) -> Any:
    """x·factor + offset in one pass."""
    return torch.add(offset, x, alpha=factor)


@dataclass(frozen=True)
class _Rule:
    """`pattern` becomes a call of `function` with `arguments` of what was found."""

    pattern: Pattern
    function: Callable[..., Any]
    arguments: Callable[[Found], tuple[Any, ...]]


def _of_x(found: Found) -> tuple[Any, ...]:
    return (found["x"],)


_ABOVE = (clip, (torch.add, "x", 3.0), 0.0, 6.0)
_ERF = (torch.add, (torch.erf, (div, "x", 2**0.5)), 1.0)
_RULES = (
    _Rule((div, (torch.mul, "x", _ABOVE), 6.0), functional.hardswish, _of_x),
    _Rule((torch.mul, "x", (div, _ABOVE, 6.0)), functional.hardswish, _of_x),
    _Rule((torch.mul, (torch.mul, "x", _ERF), 0.5), functional.gelu, _of_x),
    _Rule((torch.mul, "x", (torch.mul, _ERF, 0.5)), functional.gelu, _of_x),
    _Rule((torch.mul, (torch.mul, "x", 0.5), _ERF), functional.gelu, _of_x),
    _Rule((torch.add, (torch.mul, "x", "s"), "b"), scaled, lambda f: (f["x"], float(f["s"][1]), f["b"][0])),
    _Rule((clip, "x", "s", "b"), functional.hardtanh, lambda f: (f["x"], float(f["s"][1]), float(f["b"][1]))),
)
_KEEPS_NOTHING = frozenset({conv, torch.add, torch.sub, scaled})
"""Give a tensor of their own, and their gradients do not look at it."""


def make_cheaper(graph: fx.Graph, root: torch.nn.Module, with_axes: Collection[fx.Node]) -> None:
    """Rewrite `graph`, whose constants are buffers of `root`.

    `with_axes`: nodes whose values are known to have an axis, so that a number in a vector of length 1 adds none.
    """
    numbers, wide = dict(_numbers(graph, root)), set(with_axes)
    for rule in _RULES:
        for node in list(graph.nodes):
            found = _matched(rule.pattern, node, numbers, is_inner=False)
            if found is not None and found["x"] in wide:
                with graph.inserting_before(node):
                    new = graph.call_function(rule.function, rule.arguments(found))
                node.replace_all_uses_with(new)
                wide.add(new)
        graph.eliminate_dead_code()
    for node in graph.nodes:
        if node.target in (functional.hardtanh, torch.relu) and _is_its_own(node.args[0]):
            if node.target is torch.relu:
                node.target = functional.relu
            node.kwargs = {**node.kwargs, "inplace": True}


def channels_last(module: fx.GraphModule) -> None:
    """Weights of two-dimensional convolutions in another order in memory; shapes stay."""
    for node in module.graph.nodes:
        if node.target is conv and node.args[1].op == "get_attr":
            weight = module.get_parameter(node.args[1].target) if _is_parameter(module, node.args[1]) else None
            if weight is not None and weight.dim() == 4:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)


def _is_parameter(module: torch.nn.Module, node: fx.Node) -> bool:
    return isinstance(getattr(module, str(node.target), None), torch.nn.Parameter)


def _is_its_own(made: Any) -> bool:
    """Whether what `made` gives may be overwritten by the only node that reads it."""
    return isinstance(made, fx.Node) and made.target in _KEEPS_NOTHING and len(made.users) == 1


def _numbers(graph: fx.Graph, root: torch.nn.Module) -> Iterator[tuple[fx.Node, float]]:
    """Constants of a single number, alone or in a vector: their shapes add no axis to what has one."""
    for node in graph.nodes:
        if node.op == "get_attr" and not _is_parameter(root, node):
            tensor = getattr(root, str(node.target), None)
            if not isinstance(tensor, torch.Tensor) or tensor.numel() != 1 or tensor.dim() > 1:
                continue
            if tensor.is_floating_point():
                yield node, float(tensor)


def _matched(pattern: Pattern, node: Any, numbers: Mapping[fx.Node, float], *, is_inner: bool = True) -> Found | None:
    """What "x", "s" and "b" stand for; None where `node` is something else, or others read what lies inside."""
    if not isinstance(node, fx.Node):
        return None
    if isinstance(pattern, float):
        is_it = node in numbers and abs(numbers[node] - pattern) <= _CLOSE * max(1.0, abs(pattern))
        return {} if is_it else None
    if isinstance(pattern, str):
        if pattern == "x":
            return {"x": node}
        return {pattern: (node, numbers[node])} if node in numbers else None
    function, *inner = pattern
    is_read_elsewhere = is_inner and len(node.users) > 1
    if node.target is not function or node.kwargs or len(node.args) != len(inner) or is_read_elsewhere:
        return None
    for arguments in (node.args, node.args[::-1]) if function in _COMMUTE else (node.args,):
        found = _all_matched(inner, arguments, numbers)
        if found is not None:
            return found
    return None


def _all_matched(patterns: list[Pattern], nodes: tuple[Any, ...], numbers: Mapping[fx.Node, float]) -> Found | None:
    found: Found = {}
    for pattern, node in zip(patterns, nodes, strict=True):
        own = _matched(pattern, node, numbers)
        if own is None or any(found.get(name, value) != value for name, value in own.items()):
            return None
        found |= own
    return found
