"""Embedding tables, for those who name them: rows that a Gather looks up, weighted by how often it does.

As a layer over one-hot rows a table has H = diag(frequency): nothing can be solved, and the saliency of an entry is
f_row·w². Rows that the calibration data never reads count as read once, or they would all go first. N:M and blocks run
along a row, whose entries are read together, so that the magnitudes decide there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunec.backends.onnx.session import make_session, run
from prunec.graph.cost import FLOAT_TYPES
from prunec.graph.rules.base import attribute
from prunec.graph.shapes import constant, dims, is_constant
from prunec.passes.compensate.constants import set_constant
from prunec.patterns import Layout, Pattern, masked
from prunec.statistics.collect import CalibrationData

TABLE, INDEX = 0, 1


@dataclass(frozen=True)
class Embedding:
    """A Gather over the rows of a constant table [rows, width]."""

    node: ir.Node

    @property
    def name(self) -> str:
        return self.node.name or ""

    @property
    def is_shared(self) -> bool:
        value = self.node.inputs[TABLE]
        return value is None or len(list(value.uses())) > 1 or value.is_graph_output()

    def table(self) -> np.ndarray:
        """In the type it is stored in."""
        found = constant(self.node.inputs[TABLE])
        assert found is not None
        return found

    def write(self, graph: ir.Graph, table: np.ndarray) -> None:
        set_constant(graph, self.node, TABLE, table)


def embeddings(model: ir.Model) -> dict[str, Embedding]:
    """By node name, in graph order."""
    return {node.name or "": Embedding(node) for node in model.graph if _is_embedding(node)}


def _is_embedding(node: ir.Node) -> bool:
    if node.op_type != "Gather" or node.domain not in ("", "ai.onnx") or attribute(node, "axis", 0) != 0:
        return False
    table, index = node.inputs[TABLE], node.inputs[INDEX]
    if table is None or not is_constant(table) or is_constant(index) or table.dtype not in FLOAT_TYPES:
        return False
    return len(dims(table) or ()) == 2


def frequencies(
    model: ir.Model, wanted: Mapping[str, Embedding], calibration: CalibrationData, threads: int
) -> dict[str, np.ndarray]:
    """How often each row was read over `calibration.fit()`, int64 [rows], by node name."""
    indices = {name: own.node.inputs[INDEX] for name, own in wanted.items()}
    values = {name: value.name or "" for name, value in indices.items() if value is not None}
    counts = {name: np.zeros(len(own.table()), np.int64) for name, own in wanted.items()}
    session = make_session(model, threads=threads, outputs=sorted(set(values.values())))
    for feeds in calibration.fit():
        found = run(session, feeds)
        for name, value in values.items():
            rows = len(counts[name])
            counts[name] += np.bincount(found[value].reshape(-1) % rows, minlength=rows)
    return counts


def masked_table(embedding: Embedding, counts: np.ndarray, pattern: Pattern, level: float) -> np.ndarray:
    """The table with the entries of the most f·w², f = counts + 1."""
    table = embedding.table().astype(np.float64)
    saliency = np.square(table) * (counts + 1.0)[:, None]
    return masked(table, pattern.project(saliency, Layout(1, table.shape[1]), level))
