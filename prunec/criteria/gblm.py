"""GBLM on channels: I(c) = Σ_{j of c} Σ_i |W_ij|·(‖G_ij‖₂/mean ‖G‖₂ + ‖x_j‖₂/mean ‖x‖₂) over all consumers.

Wanda with the size of the gradients beside that of the inputs. ‖·‖₂ are root mean squares over samples (G) and over
positions (x). The paper weighs the two by a number tuned for language models (100); here each is divided by its own
mean over the layer, so that they count alike whatever the loss is. Das et al. (arXiv 2311.04902), on single weights.
"""

from __future__ import annotations

import numpy as np

from prunec.criteria.base import Columns, Needs, ScoreContext, consumed_rows, per_channel
from prunec.criteria.magnitude import no_consumer
from prunec.graph import Group


class GradientBlend:
    """|W|·(‖G‖ + ‖x‖), summed over the consumers."""

    name = "gblm"
    needs: frozenset[Needs] = frozenset({"gradients", "moments"})
    data_free = False

    def score(self, group: Group, context: ScoreContext) -> np.ndarray:
        """float64 [group.size]."""
        columns = context.columns(group)
        if not columns:
            return no_consumer(self.name, group, context)
        parts = [per_channel(blend(c, context), c.index, group.size) for c in columns]
        return np.asarray(np.sum(parts, axis=0))


def blend(columns: Columns, context: ScoreContext) -> np.ndarray:
    """float64 [positions]."""
    weight = np.abs(columns.weight).astype(np.float64)
    inputs = np.sqrt(np.maximum(context.layer(columns.consumer).second_moment_diag, 0))
    score = weight * _share(inputs)[:, None]
    gradients = gradient_rows(columns, context)
    if gradients is not None:
        score += weight * _share(np.sqrt(gradients))
    return np.asarray(score.sum(axis=1))


def gradient_rows(columns: Columns, context: ScoreContext) -> np.ndarray | None:
    """E[G²] in the layout of `columns.weight`, None where the weight has no gradient."""
    node = context.nodes[columns.consumer.node]
    assert columns.consumer.weight_index is not None
    value = node.inputs[columns.consumer.weight_index]
    squares = context.gradient_statistics().squares.get("" if value is None else value.name or "")
    return None if squares is None else consumed_rows(context, columns.consumer, squares)


def _share(values: np.ndarray) -> np.ndarray:
    mean = float(values.mean())
    return values / mean if mean > 0 else values
