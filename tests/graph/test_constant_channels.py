"""Class B: channels whose weights are all zero are found, and their constant can be folded."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunec.passes.slice_channels import slice_channels
from tests.graph.builder import Builder
from tests.graph.checks import prepare, relative_error, run


def model_with_constants() -> ir.Model:
    b = Builder(seed=3)
    weight = b.rng.standard_normal((8, 3, 3, 3)).astype(np.float32)
    weight[[2, 5]] = 0
    x = b.op("Conv", [b.input("x", [1, 3, 6, 6]), b.const(weight), b.weight(8)], pads=[1] * 4)
    b.output(b.conv(b.relu(x), 4, 1))
    return b.model()


def test_groups_with_constant_channels_are_class_b() -> None:
    _, analysis = prepare(model_with_constants())
    assert [g.kind for g in analysis.groups] == ["B", "A"]


def test_folding_the_constant_is_exact_without_padding() -> None:
    canonical, analysis = prepare(model_with_constants())
    (group,) = (g for g in analysis.groups if g.pinned is None)
    keep = np.ones(8, bool)
    keep[[2, 5]] = False
    cut = slice_channels(canonical, analysis, analysis.alive({group.id: keep}))
    first, second = (node for node in canonical.graph if node.op_type == "Conv")
    bias = first.inputs[2].const_value.numpy()  # type: ignore[union-attr]
    consumed = second.inputs[1].const_value.numpy()[:, :, 0, 0]  # type: ignore[union-attr]
    fold = consumed[:, ~keep] @ np.maximum(bias[~keep], 0)
    name = second.inputs[2].name  # type: ignore[union-attr]
    target = cut.graph.initializers[str(name)]
    target.const_value = ir.tensor(target.const_value.numpy() + fold)  # type: ignore[union-attr]
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 3, 6, 6)).astype(np.float32)}
    assert relative_error(run(canonical, feeds), run(cut, feeds)) <= 1e-6
