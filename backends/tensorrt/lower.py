"""From the pruned FP32 model to the FP16 one that ships, and what is shown about it in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
from prunec.verify.metrics import is_inexact, max_relative
from prunec.verify.records import LoweringRecord

TOLERANCE = 3e-2
"""FP16 against FP32, of each output's largest value. One rounding is 5e-4; the worst model of the zoo has 1.9e-2."""


def check_lowering_options(options: BuildOptions) -> None:
    """Raise PrunecError PC445 for a precision, PC444 for a form of products that there is not."""
    if options.precision not in (None, "fp16", "int8"):
        message = f"there is no precision {options.precision!r}"
        raise PrunecError("PC445", message, where="--precision", hint="fp16 or int8; sparse kernels have no other")
    check_products(options.products)


def prepared(model: ir.Model, planned: Sequence[str], batches: Sequence[Feeds], options: BuildOptions) -> ir.Model:
    """`model` with its products in the form that was asked for, and for INT8 with `planned` layers quantised."""
    formed = with_products(model, options.products)
    if options.precision != "int8":
        return formed
    raised = ShapeInferencePass()(with_half_scales(formed).clone()).model
    verdicts = judge(raised, counts=False)
    values = activations(raised, planned, verdicts)
    return quantise(raised, verdicts, values, scales(raised, set(values.values()), batches, threads=options.threads))


def convert(model: ir.Model, batches: Sequence[Feeds], threads: int) -> Half:
    """`model` in FP16; what comes too near FP16's largest on `batches` stays FP32."""
    typed = ShapeInferencePass()(model.clone()).model
    tops = largest(typed, batches, float_values(typed), threads=threads)
    return to_half(model, too_large(typed, tops))


INT8_TOLERANCE = 0.25
"""INT8 weights and activations against FP32. It shows a wrong scale; what INT8 costs is a matter of quality."""


def fitted(feeds: Feeds, ranges: Mapping[str, Range]) -> dict[str, np.ndarray]:
    """One batch in the usual shapes: what is too long is cropped, what is too short repeats."""
    found = dict(feeds)
    for name, (_, usual, _) in ranges.items():
        for axis, length in enumerate(usual):
            found[name] = np.take(found[name], np.arange(length) % max(found[name].shape[axis], 1), axis=axis)
    return found


TOLERANCES = {"fp16": TOLERANCE, "int8": INT8_TOLERANCE}


def compare(
    reference: ir.Model, lowered: ir.Model, batches: Sequence[Feeds], *, threads: int, tolerance: float = TOLERANCE
) -> LoweringRecord:
    """Largest error of `lowered` over all batches, on outputs that are floating-point numbers.

    Raises:
        GateError PC524: above `tolerance`.
    """
    first, second = (make_session(model, threads=threads) for model in (reference, lowered))
    worst, where = 0.0, ""
    for feeds in batches:
        expected, found = run(first, feeds), run(second, feeds)
        for name, array in expected.items():
            error = max_relative(array, found[name]) if is_inexact(array) else 0.0
            worst, where = (error, name) if error > worst else (worst, where)
    if not worst <= tolerance:
        raise GateError(
            "PC524",
            f"lowered, an output differs by {worst:.1e} of its largest value, more than the {tolerance:.0e} allowed",
            where=where,
            hint="give data as the model sees it with --calib: ranges are taken from them",
        )
    return LoweringRecord(max_rel=worst, tolerance=tolerance, passed=True)


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
