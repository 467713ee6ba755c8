"""From the pruned FP32 model to the FP16 one that ships, and what is shown about it in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from prunec.backends.base import BuildOptions, Feeds, Range, Verdict
from prunec.backends.onnx.session import make_session, run
from prunec.backends.tensorrt.eligibility import judge
from prunec.backends.tensorrt.half import Half, to_half
from prunec.backends.tensorrt.products import check_products, with_products
from prunec.backends.tensorrt.proof import WeightProof, prove
from prunec.backends.tensorrt.quantise import activations, quantise, scales, with_half_scales
from prunec.backends.tensorrt.ranges import float_values, largest, too_large
from prunec.diagnostics import GateError, PrunecError
from prunec.verify.metrics import Agreement, is_inexact, max_relative
from prunec.verify.records import LoweringRecord

CALIBRATE, CALIBRATE_SAMPLES = 4, 64
"""Batches that ranges and scales are taken from; more of them where they hold fewer samples."""


def check_lowering_options(options: BuildOptions) -> None:
    """Raise PrunecError PC445 for a precision, PC444 for a form of products that there is not."""
    if options.precision not in (None, "fp16", "int8"):
        message = f"there is no precision {options.precision!r}"
        raise PrunecError("PC445", message, where="--precision", hint="fp16 or int8; sparse kernels have no other")
    check_products(options.products)


def prepared(model: ir.Model, planned: Sequence[str], batches: Sequence[Feeds], options: BuildOptions) -> ir.Model:
    """`model` with its products in the form that was asked for, and for INT8 with `planned` layers quantised.

    `batches`: calibration data that scales are taken from.
    """
    formed = with_products(model, options.products)
    if options.precision != "int8":
        return formed
    raised = ShapeInferencePass()(with_half_scales(formed).clone()).model
    verdicts = judge(raised, counts=False)
    values = activations(raised, planned, verdicts)
    return quantise(raised, verdicts, values, scales(raised, set(values.values()), batches, threads=options.threads))


def convert(model: ir.Model, batches: Sequence[Feeds], threads: int) -> Half:
    """`model` in FP16; what comes too near FP16's largest on `batches`, calibration data, stays FP32."""
    typed = ShapeInferencePass()(model.clone()).model
    tops = largest(typed, batches, float_values(typed), threads=threads)
    return to_half(model, too_large(typed, tops))


def fitted(feeds: Feeds, ranges: Mapping[str, Range]) -> dict[str, np.ndarray]:
    """One batch in the usual shapes: what is too long is cropped, what is too short repeats."""
    found = dict(feeds)
    for name, (_, usual, _) in ranges.items():
        for axis, length in enumerate(usual):
            found[name] = np.take(found[name], np.arange(length) % max(found[name].shape[axis], 1), axis=axis)
    return found


@dataclass(frozen=True)
class Bound:
    """What is allowed: of each output's largest value ("max_rel"), or of its Euclidean norm ("l2_rel")."""

    of: Literal["max_rel", "l2_rel"]
    tolerance: float


BOUNDS = {"fp16": Bound("max_rel", 3e-2), "int8": Bound("l2_rel", 0.25)}
"""One rounding to FP16 is 5e-4; the worst model of the zoo has 1.9e-2. INT8 moves every value a little and single ones
a lot (a class that was undecided), so its norm is bounded; that shows a wrong scale, and what INT8 costs is a matter
of quality. FP16 does so too behind a softmax or a sigmoid, and its norm is bounded there, as tightly."""
_SATURATING = frozenset({"Softmax", "Sigmoid", "Tanh"})
_CARRYING = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast"})


def bound_of(model: ir.Model, precision: str) -> Bound:
    """What is allowed of the lowered form of `model`."""
    bound = BOUNDS[precision]
    return replace(bound, of="l2_rel") if any(map(_is_saturated, model.graph.outputs)) else bound


def _is_saturated(value: ir.Value | None) -> bool:
    """Whether a value comes from an operator whose slope is steep where it is undecided, but for its shape."""
    node = None if value is None else value.producer()
    while node is not None and node.op_type in _CARRYING and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node is not None and node.op_type in _SATURATING


Errors = dict[str, dict[str, float]]
"""Kind ("max_rel", "l2_rel") → output → error."""


def errors(reference: ir.Model, lowered: ir.Model, batches: Sequence[Feeds], *, threads: int = 1) -> Errors:
    """Of `lowered` over all batches, on outputs that are floating-point numbers.

    Quantisers compute as they are written: ONNX Runtime would quantise biases by products of two FP16 scales, which
    underflow.
    """
    first = make_session(reference, threads=threads)
    second = make_session(lowered, threads=threads, quantisers_as_written=True)
    largest: dict[str, float] = {}
    norms: dict[str, Agreement] = {}
    for feeds in batches:
        expected, found = run(first, feeds), run(second, feeds)
        for name, array in expected.items():
            if is_inexact(array):
                largest[name] = max(largest.get(name, 0.0), max_relative(array, found[name]))
                norms.setdefault(name, Agreement()).add(array, found[name])
    by_norm = {name: a.relative_error if np.isfinite(largest[name]) else np.inf for name, a in norms.items()}
    return {"max_rel": largest, "l2_rel": by_norm}


def compare(
    reference: ir.Model, lowered: ir.Model, batches: Sequence[Feeds], *, threads: int, precision: str = "fp16"
) -> LoweringRecord:
    """The worst of the outputs' errors.

    Raises:
        GateError PC524: above what `bound_of` allows.
    """
    bound = bound_of(reference, precision)
    found = errors(reference, lowered, batches, threads=threads)
    bounded = found[bound.of]
    worst = max(bounded, key=lambda name: bounded[name], default="")
    if not bounded.get(worst, 0.0) <= bound.tolerance:
        what = f"of its {'largest value' if bound.of == 'max_rel' else 'norm'}"
        raise GateError(
            "PC524",
            f"lowered, an output differs by {bounded[worst]:.1e} {what}, more than the {bound.tolerance:g} allowed",
            where=worst,
            hint="give data as the model sees it with --calib: ranges are taken from them",
        )
    return LoweringRecord(
        max_rel=max(found["max_rel"].values(), default=0.0),
        l2_rel=max(found["l2_rel"].values(), default=0.0) if bound.of == "l2_rel" else None,
        tolerance=bound.tolerance,
        passed=True,
    )


def prove_planned(model: ir.Model, verdicts: Sequence[Verdict], planned: Sequence[str]) -> list[WeightProof]:
    """The proof of every planned weight of the finished graph.

    Raises:
        GateError PC525: one does not pass, or is not what TensorRT would look at.
    """
    known = {verdict.node: verdict for verdict in verdicts}
    proofs = []
    for name in planned:
        verdict = known.get(name)
        if verdict is None or not verdict.eligible:
            reason = "there is no such layer" if verdict is None else verdict.reason
            raise GateError("PC525", f"a planned weight is not one that TensorRT reads as sparse: {reason}", where=name)
        proof = prove(model, verdict)
        if not proof.passed:
            message = (
                f"{proof.valid} of {proof.units} runs of four are 2:4, products differ by {proof.product_max_rel:.1e}"
            )
            raise GateError("PC525", f"the proof of a planned weight failed: {message}", where=name)
        proofs.append(proof)
    return proofs
