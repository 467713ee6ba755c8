"""Small models and made-up statistics for the tests of criteria and plans."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunec.criteria import ScoreContext
from prunec.criteria.base import per_channel
from prunec.graph import Analysis, Group, analyse
from prunec.passes.canonicalise import canonicalise
from prunec.statistics import LayerStatistics
from prunec.statistics.collect import inverse_diagonal
from prunec.statistics.gradients import GradientStatistics
from tests.graph.builder import Builder


def chain(width: int = 16, *, seed: int = 0) -> ir.Model:
    """Conv 3→width, Relu, Conv width→24 on 4×4, Relu, flatten, Gemm → 10."""
    b = Builder(seed)
    x = b.relu(b.conv(b.input("x", [1, 3, 4, 4]), width))
    x = b.relu(b.conv(x, 24, stride=2))
    b.output(b.gemm(b.reshape(x, [1, 24 * 4]), 10))
    return b.model()


def grouped(*, seed: int = 0) -> ir.Model:
    """A ResNeXt block: 1×1 to 32, 3×3 in 8 groups, 1×1 back, residual; a depthwise layer behind it."""
    b = Builder(seed)
    stem = b.relu(b.conv(b.input("x", [1, 3, 8, 8]), 48))
    y = b.relu(b.conv(stem, 64, 1))
    y = b.relu(b.conv(y, 64, group=8))
    y = b.relu(b.op("Add", [b.conv(y, 48, 1), stem]))
    y = b.relu(b.conv(y, 48, group=48))
    y = b.op("GlobalAveragePool", [b.conv(y, 40, 1)])
    b.output(b.gemm(b.reshape(y, [1, 40]), 10))
    return b.model()


def branches(*, seed: int = 0) -> ir.Model:
    """One convolution whose slices feed two others, concatenated with a third."""
    b = Builder(seed)
    stem = b.relu(b.conv(b.input("x", [1, 3, 8, 8]), 64))
    left, right = b.op("Split", [stem, b.const(np.array([40, 24], np.int64))], 2, axis=1)
    y = b.op("Concat", [b.relu(b.conv(left, 32)), b.relu(b.conv(right, 24)), left], axis=1)
    b.output(b.conv(y, 8))
    return b.model()


def attention(*, seed: int = 0) -> ir.Model:
    """Four heads of 8 and a feed-forward layer of 64 behind a width of 32."""
    b = Builder(seed)
    x = b.input("x", [1, 6, 32])
    q, k, v = (
        b.op("Transpose", [b.reshape(b.linear(x, 32), [1, 6, 4, 8])], perm=perm)
        for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    )
    scores = b.op("Softmax", [b.op("MatMul", [q, k])], axis=-1)
    mixed = b.op("Transpose", [b.op("MatMul", [scores, v])], perm=[0, 2, 1, 3])
    y = b.op("Add", [b.linear(b.reshape(mixed, [1, 6, 32]), 32), x])
    b.output(b.op("Add", [b.linear(b.relu(b.linear(y, 64)), 32), y]))
    return b.model()


def prepare(model: ir.Model) -> tuple[ir.Model, Analysis]:
    canonical = canonicalise(model)
    return canonical, analyse(canonical)


def free(analysis: Analysis) -> list[Group]:
    return [g for g in analysis.groups if g.pinned is None and g.size > 1]


def fake_statistics(analysis: Analysis, seed: int = 0, samples: int = 400) -> dict[str, LayerStatistics]:
    """Correlated made-up data for every weighted consumer."""
    rng = np.random.default_rng(seed)
    found = {}
    for consumer in analysis.consumers:
        if consumer.weight_index is not None:
            n = len(consumer.channels)
            data = rng.standard_normal((samples, n)) @ (rng.standard_normal((n, n)) / np.sqrt(n) + np.eye(n))
            data = np.maximum(data * rng.lognormal(0, 0.5, n) + 0.2, 0)
            covariance = np.cov(data.T, bias=True)
            found[consumer.node] = LayerStatistics(
                samples, data.mean(0), (data**2).mean(0), covariance, inverse_diagonal(covariance), None
            )
    return found


def fake_gradients(model: ir.Model, analysis: Analysis, seed: int = 0) -> GradientStatistics:
    """What one backward pass with made-up gradients would give."""
    rng = np.random.default_rng(seed)
    about = ScoreContext(model, analysis)
    arrays = {m.tensor: about.array(m.tensor) for g in analysis.groups for m in g.members if m.role != "carrier"}
    gradients = {name: rng.standard_normal(array.shape) for name, array in arrays.items()}
    products, relevance = {}, {}
    for group in free(analysis):
        total = np.zeros(group.size)
        for member in group.producers():
            rows = np.moveaxis(arrays[member.tensor] * gradients[member.tensor], member.axis, 0)
            total += per_channel(rows.reshape(len(rows), -1).sum(axis=1), member.index, group.size)
        used = [per_channel(np.abs(c.weight).sum(axis=1), c.index, group.size) for c in about.columns(group)]
        products[group.id], relevance[group.id] = np.abs(total), np.sum([np.abs(total), *used], axis=0)
    return GradientStatistics(1, {n: g.astype(np.float32) ** 2 for n, g in gradients.items()}, products, relevance)


def context(model: ir.Model, *, seed: int = 0) -> ScoreContext:
    """Canonical model, analysis, fake statistics and gradients in one."""
    canonical, analysis = prepare(model)
    gradients = fake_gradients(canonical, analysis, seed)
    return ScoreContext(canonical, analysis, fake_statistics(analysis, seed), seed, gradients=gradients)
