"""What a micro graph test is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.graph.builder import Builder

C = 16


@dataclass(frozen=True)
class Micro:
    """`free`: sizes of the groups that may be cut. `pinned`: codes of the pins that must be given as reasons."""

    build: Callable[[Builder], None]
    free: list[int]
    pinned: frozenset[str] = frozenset({"PC102"})
    opset: int = 18
