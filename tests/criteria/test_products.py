"""Widths of queries and keys are scored by what the attention scores lose."""

from __future__ import annotations

import numpy as np

from prunec.criteria import ScoreContext, create
from prunec.graph.head_width import analyse_widths
from prunec.graph.shapes import constant
from prunec.passes.canonicalise import canonicalise
from prunec.statistics.collect import LayerStatistics, inverse_diagonal
from tests.graph.builder import Builder
from tests.graph.micros_sequence import HEADS, TOKENS, WIDTH, attention


def test_the_moments_of_query_and_key_decide() -> None:
    b = Builder(seed=2)
    attention(b)
    model = canonicalise(b.model())
    analysis = analyse_widths(model)
    products = [node for node in model.graph if node.op_type == "MatMul" and constant(node.inputs[1]) is not None]
    x = np.random.default_rng(0).standard_normal((4000, TOKENS[-1])) * np.linspace(0.2, 2, TOKENS[-1]) + 0.3
    mean, covariance = x.mean(axis=0), np.cov(x.T, bias=True)
    seen = LayerStatistics(len(x), mean, np.square(x).mean(axis=0), covariance, inverse_diagonal(covariance), None)
    context = ScoreContext(model, analysis, {node.name or "": seen for node in products[:3]})
    (group,) = [g for g in analysis.groups if len(g.producers()) == 2]
    query, key = ((x @ _array(node, 1) + _bias(node)).T.reshape(HEADS, WIDTH, -1) for node in products[:2])
    lost = (np.square(query).mean(-1) * key.var(-1) + query.var(-1) * np.square(key).mean(-1)) / 2
    np.testing.assert_allclose(create("obs").score(group, context), lost.sum(axis=0), rtol=1e-5)
    assert context.notes == []


def _array(node: object, index: int) -> np.ndarray:
    found = constant(node.inputs[index])  # type: ignore[attr-defined]
    assert found is not None
    return np.asarray(found, np.float64)


def _bias(node: object) -> np.ndarray:
    (use,) = list(node.outputs[0].uses())  # type: ignore[attr-defined]
    return _array(use.node, 1 - use.idx)
