"""Operator → torch function: what `prunec.torch.from_ir` builds its modules from.

One file per family, each with a table `OPERATORS`. A function takes the node's inputs in order (None where one is
omitted) and its attributes by name. Two annotations have a meaning:

    Ints     a list of integers: a constant is written into the call, a computed one arrives as a tensor
    Buffer   a float constant here is no parameter (running statistics, bounds)

A parameter named `output_count` gets the number of the node's outputs. `REFUSALS` of a family maps an operator to a
function of the node that returns why this one cannot be built, or None.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

_FAMILIES = "elementwise shape move conv pool linear norm reduce recurrent resize attention quantise".split()
Refusal = Callable[[ir.Node], str | None]


@dataclass(frozen=True)
class Operator:
    """A function and what its parameters want: positions of `Ints` and of `Buffer` inputs."""

    function: Callable[..., Any]
    ints: frozenset[int]
    buffers: frozenset[int]
    wants_output_count: bool
    refusal: Refusal | None = None


@functools.cache
def operators() -> dict[str, Operator]:
    """Every operator by name; those of other domains are written "domain::Op"."""
    table: dict[str, Operator] = {}
    for family in _FAMILIES:
        module = importlib.import_module(f"prunec.torch.operators.{family}")
        refusals: dict[str, Refusal] = getattr(module, "REFUSALS", {})
        for name, function in module.OPERATORS.items():
            assert name not in table, f"two functions for {name}"
            table[name] = _describe(function, refusals.get(name))
    return table


def operator_for(node: ir.Node) -> Operator | None:
    domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}::"
    return operators().get(f"{domain}{node.op_type}")


def _describe(function: Callable[..., Any], refusal: Refusal | None) -> Operator:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # torch's built-in functions have no signature
        parameters = []
    wanted = {
        kind: frozenset(i for i, p in enumerate(parameters) if p.annotation == kind) for kind in ("Ints", "Buffer")
    }
    counted = any(p.name == "output_count" for p in parameters)
    return Operator(function, wanted["Ints"], wanted["Buffer"], counted, refusal)
