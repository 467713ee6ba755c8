"""All that a recovery is about: both models, what is left of the dense one, the samples, the module."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from prunec.passes.compensate.pairs import Kept
from prunec.recover.clock import Clock
from prunec.recover.data import Pool
from prunec.recover.losses import Kind
from prunec.recover.parameters import Trainable
from prunec.recover.student import Student


@dataclass(frozen=True)
class Subject:
    """`precision` (fp32, bf16) is that of forward passes in training.

    `borders`: bytes of every value at which the models can be compared, for the first batch, in graph order.
    """

    dense: ir.Model
    pruned: ir.Model
    kept: Kept
    pool: Pool
    student: Student
    trained: Trainable
    outputs: dict[str, Kind]
    borders: dict[str, int]
    clock: Clock
    seed: int
    threads: int
    precision: str = "fp32"
