"""Cut a model, mask it, and compare: what every graph test does."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from prunec.graph import Analysis, analyse
from prunec.passes.canonicalise import canonicalise
from prunec.passes.mask_channels import mask_channels
from prunec.passes.slice_channels import slice_channels
from prunec.verify.unrounded import is_quantised, without_rounding


def prepare(model: ir.Model) -> tuple[ir.Model, Analysis]:
    canonical = canonicalise(model)
    return canonical, analyse(canonical)


def free_sizes(analysis: Analysis) -> list[int]:
    """Sizes of the groups that may be cut, in order."""
    return [g.size for g in analysis.groups if g.pinned is None]


def random_alive(analysis: Analysis, share: float, rng: np.random.Generator) -> np.ndarray:
    """Cut `share` of every free group at random, keeping at least one position on every axis (and k experts)."""
    keeps = {}
    for group in analysis.groups:
        if group.pinned is None and group.size > 1:
            mask = np.ones(group.size, bool)
            gone = min(int(group.size * share), group.size - (group.experts or 1))
            mask[rng.choice(group.size, gone, replace=False)] = False
            keeps[group.id] = mask
    alive = analysis.alive(keeps)
    while empty := analysis.empty_axes(alive):
        for ids in empty:
            alive[rng.choice(ids)] = True
    return alive


def random_feeds(model: ir.Model, rng: np.random.Generator) -> dict[str, np.ndarray]:
    feeds = {}
    for value in model.graph.inputs:
        assert value.shape is not None and value.dtype is not None and value.name is not None
        shape = [d if isinstance(d, int) else 2 for d in value.shape]
        dtype = np.dtype(value.dtype.numpy())
        draw = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
        feeds[value.name] = draw.astype(dtype)
    return feeds


def run(model: ir.Model, feeds: Mapping[str, np.ndarray], *, optimise: bool = True) -> list[np.ndarray]:
    """Outputs in ONNX Runtime, one thread, of a model that must pass the checker."""
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


def run_float64(model: ir.Model, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Outputs in float64 by the reference evaluator: all float32 tensors of the model are widened first."""
    from prunec.verify.reference import evaluate_float64

    return evaluate_float64(without_rounding(model), feeds)


def relative_error(expected: list[np.ndarray], actual: list[np.ndarray]) -> float:
    """Largest deviation over all outputs, relative to the range of each output."""
    worst = 0.0
    for want, got in zip(expected, actual, strict=True):
        assert want.shape == got.shape
        if want.size:
            scale = max(float(np.abs(want).max()), 1e-30)
            worst = max(worst, float(np.abs(want.astype(np.float64) - got.astype(np.float64)).max()) / scale)
    return worst


def assert_exact(model: ir.Model, analysis: Analysis, seed: int, share: float = 0.5) -> ir.Model:
    """Cut a random share and compare with the masked reference in float32 (1e-5); returns the cut model.

    Quantised models are run as they are, and compared without their rounding. Where scores that a TopK ranks are equal
    but for rounding, its choice is no property of the cut: then both models rank them with a ramp on top.
    """
    rng = np.random.default_rng(seed)
    alive = random_alive(analysis, share, rng)
    cut = slice_channels(model, analysis, alive)
    feeds = random_feeds(model, rng)
    masked = mask_channels(model, analysis, alive)
    if is_quantised(model):
        # Optimisations fuse activations with a scale per channel into kernels that then refuse them.
        shapes = [[y.shape for y in run(either, feeds, optimise=False)] for either in (masked, cut)]
        assert shapes[0] == shapes[1]
    pair = without_rounding(masked), without_rounding(cut)
    error = relative_error(run(pair[0], feeds), run(pair[1], feeds))
    if error > 1e-5 and has_ties(pair[0], feeds):
        error = relative_error(*(run(ramped(either), feeds) for either in pair))
    assert error <= 1e-5, f"seed {seed}: sliced and masked differ by {error:.2e}"
    return cut


def has_ties(model: ir.Model, feeds: Mapping[str, np.ndarray]) -> bool:
    """Does a TopK rank values that differ by rounding only?"""
    ranked = [(node.inputs[0], _axis(node)) for node in model.graph if node.op_type == "TopK"]
    shown = model.clone()
    values = {value.name: value for node in shown.graph for value in node.outputs}
    shown.graph.outputs[:] = [values[value.name] for value, _ in ranked if value is not None and value.name in values]
    if not shown.graph.outputs:
        return False
    for scores, (_, axis) in zip(run(shown, feeds), ranked, strict=True):
        gaps = np.diff(np.sort(scores, axis=axis), axis=axis)
        if gaps.size and float(gaps.min()) <= 1e-5 * float(np.abs(scores).max()):
            return True
    return False


def ramped(model: ir.Model) -> ir.Model:
    """A copy in which every TopK ranks its scores plus 0, 1, 2, … along the axis."""
    model = model.clone()
    for node in [node for node in model.graph if node.op_type == "TopK"]:
        scores = node.inputs[0]
        assert scores is not None and scores.shape is not None and scores.dtype is not None
        shape = [1] * len(scores.shape)
        shape[_axis(node)] = -1
        length = scores.shape[_axis(node)]
        assert isinstance(length, int)
        ramp = np.arange(length, dtype=scores.dtype.numpy()).reshape(shape)
        own = ir.TensorType(scores.dtype)
        constant = ir.Value(name=f"{node.name}_ramp", type=own, shape=ir.Shape(ramp.shape), const_value=ir.tensor(ramp))
        model.graph.initializers.add(constant)
        add = ir.node("Add", [scores, constant], name=f"{node.name}_ramped")
        add.outputs[0].type, add.outputs[0].shape = own, scores.shape
        model.graph.insert_before(node, add)
        node.replace_input_with(0, add.outputs[0])
    return model


def _axis(node: ir.Node) -> int:
    attribute = node.attributes.get("axis")
    return -1 if attribute is None else attribute.as_int()
