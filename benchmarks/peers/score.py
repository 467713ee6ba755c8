"""What came back, judged in one way whoever made it: the zoo's metric, output error, zeros, sizes, and 2:4 as read.

    output error = ‖y − y_dense‖ / ‖y_dense‖        over test inputs, which nobody calibrated on
    2:4 as read  = Σ MACs of layers that are 2:4 / Σ MACs of layers that can be

2:4 is what `prunec.backends.tensorrt` finds that TensorRT would read: along the input channels, one kernel position at
a time, in layers whose input channels come in fours.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from benchmarks.peers.jobs import PeerFailed
from benchmarks.subject import Subject
from prunec.backends.onnx.session import make_session, run
from prunec.backends.tensorrt.eligibility import judge
from prunec.graph.cost import model_macs, node_macs, parameter_count
from prunec.graph.shapes import constant
from prunec.passes.canonicalise import canonicalise
from prunec.passes.compensate.constants import set_constant
from prunec.passes.sparsify import views
from prunec.passes.sparsify.embeddings import Embedding
from prunec.patterns import parse
from prunec.plan.layers import choose_layers
from prunec.verify.inputs import first_line
from prunec.verify.metrics import Agreement
from prunec.verify.ort_errors import ORT_ERRORS

TEST_INPUTS = 64
TWO_OF_FOUR = parse("2:4")


@dataclass(frozen=True)
class Score:
    """What a row says of a model.

    `zeros`: share of the weights of layers; `params`, `macs`, `macs_nonzero` (on weights that are not zero): shares of
    the dense model's; `two_of_four`: see above.
    """

    values: dict[str, float]
    output_error: float
    zeros: float
    params: float
    macs: float
    macs_nonzero: float
    two_of_four: float


def score(subject: Subject, model: ir.Model) -> Score:
    """`model` is a file that a peer wrote, or ours; it stays as it is."""
    canonical, dense = canonicalise(model.clone()), subject.opened.canonical
    whole = model_macs(dense)
    weights = zeros = 0
    saved = 0.0
    for layer in views.prunable_layers(canonical).values():
        if isinstance(layer, Embedding):
            continue
        constants, macs = views.constants(layer), node_macs(layer.node)
        size, own = sum(array.size for array in constants), sum(int((array == 0).sum()) for array in constants)
        weights, zeros = weights + size, zeros + own
        saved += macs * own / max(size, 1)
    return Score(
        values=subject.values(model),
        output_error=output_error(subject, model),
        zeros=zeros / max(weights, 1),
        params=parameter_count(canonical) / parameter_count(dense),
        macs=model_macs(canonical) / whole,
        macs_nonzero=(model_macs(canonical) - saved) / whole,
        two_of_four=two_of_four(canonical),
    )


def check_runs(subject: Subject, model: ir.Model) -> None:
    """One test input through what a peer wrote.

    Raises:
        PeerFailed: ONNX Runtime does not take it.
    """
    try:
        run(make_session(model), next(iter(_test_inputs(subject))))
    except ORT_ERRORS as error:
        text = first_line(error)
        raise PeerFailed(f"its model does not run: {text.partition('Status Message: ')[2] or text}") from error


def _test_inputs(subject: Subject) -> Iterable[dict[str, np.ndarray]]:
    found: Iterable[dict[str, np.ndarray]]
    found = importlib.import_module(subject.found.entry.module).test_inputs(TEST_INPUTS, subject.seed)
    return found


def two_of_four(model: ir.Model) -> float:
    """The share of the multiply-accumulates of eligible layers that are in layers which are 2:4."""
    eligible = [(layer.macs, layer.count) for layer in judge(model) if layer.eligible and layer.count is not None]
    sparse = sum(macs for macs, count in eligible if count.valid == count.units)
    return sparse / max(sum(macs for macs, _ in eligible), 1)


def output_error(subject: Subject, model: ir.Model) -> float:
    dense, pruned = make_session(subject.opened.source.model), make_session(model)
    agreements: dict[str, Agreement] = {}
    for feeds in _test_inputs(subject):
        wanted, found = run(dense, feeds), run(pruned, feeds)
        for name, answer in zip(wanted, found.values(), strict=True):
            agreements.setdefault(name, Agreement()).add(wanted[name], answer)
    return float(np.mean([agreement.numbers().get("relative_error", 0.0) for agreement in agreements.values()]))


def with_dense(subject: Subject, pruned: ir.Model) -> ir.Model | None:
    """The pruned model with the layers dense again that a compile of prunec leaves dense: stem, depthwise, head.

    Layers are found by what they compute: tools rename weights, not activations. None where nothing changes. Fair to
    tools that prune every layer on the dense model's activations, as all do here but llm-compressor on transformers,
    which have none of these layers.
    """
    plans = choose_layers(subject.opened.canonical, TWO_OF_FOUR, TWO_OF_FOUR.fixed_level)
    names = {plan.tensor for plan in plans if plan.why.startswith(("stem", "depthwise", "head"))}
    return restored(pruned, ir.load(subject.found.path), names)


def restored(pruned: ir.Model, dense: ir.Model, names: Collection[str]) -> ir.Model | None:
    """A clone of `pruned` in which the nodes that read `names` in `dense` have the dense weight; None if all had it."""
    result, changed = pruned.clone(), False
    makers = {value.name: node for node in result.graph for value in node.outputs}
    for node in dense.graph:
        for index, value in enumerate(node.inputs):
            twin = makers.get(node.outputs[0].name)
            if value is None or value.name not in names or twin is None:
                continue
            wanted, found = constant(value), constant(twin.inputs[index])
            if wanted is None or found is None or wanted.shape != found.shape or np.array_equal(wanted, found):
                continue
            set_constant(result.graph, twin, index, wanted)
            changed = True
    return result if changed else None


def mean_values(scores: Iterable[Score], name: str) -> float:
    return float(np.mean([score.values[name] for score in scores]))
