"""What TensorRT's ONNX parser does not take: operators, opsets, types, dynamic shapes without a range.

Operators: the support matrix of onnx-tensorrt for TensorRT 10.15 (opset 9 to 24; 11.x to 25), standard domain only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from prunec.backends.base import Range, Shape
from prunec.backends.tensorrt.weights import STANDARD
from prunec.diagnostics import PrunecError
from prunec.frontend.input_shapes import real_inputs
from prunec.graph.shapes import dims

NEWEST_OPSET = 24
UNSUPPORTED = frozenset(
    "AffineGrid Bernoulli BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Col2Im CenterCropPad Compress "
    "ConcatFromSequence ConvInteger DFT Det DynamicQuantizeLinear ImageDecoder MatMulInteger MaxRoiPool MaxUnpool "
    "MelWeightMatrix Multinomial NegativeLogLikelihoodLoss Optional OptionalGetElement OptionalHasElement "
    "QLinearConv QLinearMatMul RegexFullMatch SequenceAt SequenceConstruct SequenceEmpty SequenceErase "
    "SequenceInsert SequenceLength SequenceMap SoftmaxCrossEntropyLoss SplitToSequence StringConcat "
    "StringNormalizer StringSplit TensorScatter TfIdfVectorizer Unique".split()
)


def check_operators(model: ir.Model) -> None:
    """Raise PrunecError PC434 that names every operator TensorRT does not have, PC436 for an opset it does not know."""
    opset = model.opset_imports.get("", 0)
    if opset > NEWEST_OPSET:
        message = f"TensorRT 10 knows opsets up to {NEWEST_OPSET}, this model has {opset}"
        raise PrunecError("PC436", message, hint=f"export it with opset {NEWEST_OPSET} or older")
    found: dict[str, str] = {}
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.domain not in STANDARD or node.op_type in UNSUPPORTED:
            found.setdefault(f"{node.domain}::{node.op_type}" if node.domain else node.op_type, node.name or "")
    if found:
        names = ", ".join(f"{op} ({name})" if name else op for op, name in sorted(found.items()))
        hint = "export the model without fused or quantised operators, or use --target onnx"
        raise PrunecError("PC434", f"TensorRT has no operator {names}", where="--target", hint=hint)


def check_ranges(model: ir.Model, ranges: Mapping[str, Range]) -> None:
    """Raise PrunecError PC435 where a dynamic input has no range, PC437 for a range that does not fit the model."""
    inputs = {value.name or "": value for value in real_inputs(model)}
    for name, given in ranges.items():
        if name not in inputs:
            known = f"its inputs are: {', '.join(sorted(inputs))}"
            raise PrunecError("PC437", f"the model has no input {name!r}", where="--shape-range", hint=known)
        _check_fits(name, inputs[name], given)
    missing = {name: value for name, value in inputs.items() if is_dynamic(value) and name not in ranges}
    if missing:
        example = " ".join(f"--shape-range {name}={_example(value)}" for name, value in missing.items())
        raise PrunecError(
            "PC435",
            f"TensorRT needs the least, usual and largest shape of {', '.join(missing)}, which is dynamic",
            where=next(iter(missing)),
            hint=f"for instance {example}; or make it static with --input-shape",
        )


def is_dynamic(value: ir.Value) -> bool:
    shape = dims(value)
    return shape is None or not all(isinstance(d, int) for d in shape)


def parse_ranges(texts: Sequence[str]) -> dict[str, Range]:
    """["x=1x3:8x3:32x3"] → {"x": ((1, 3), (8, 3), (32, 3))}; one shape stands for all three. Raises PC437."""
    found: dict[str, Range] = {}
    for text in texts:
        name, equals, shapes = text.rpartition("=")
        parts = shapes.split(":")
        if not equals or not name.strip() or len(parts) not in (1, 3):
            raise _not_a_range(text)
        least, usual, most = (_shape(part, text) for part in (parts if len(parts) == 3 else parts * 3))
        found[name.strip()] = (least, usual, most)
    return found


def _shape(part: str, text: str) -> Shape:
    try:
        shape = tuple(int(length) for length in part.replace(",", "x").split("x"))
    except ValueError:
        raise _not_a_range(text) from None
    if any(length < 1 for length in shape):
        raise _not_a_range(text)
    return shape


def _not_a_range(text: str) -> PrunecError:
    hint = "write --shape-range NAME=1x3x224x224:8x3x224x224:32x3x224x224 (least, usual, largest)"
    return PrunecError("PC437", f'"{text}" is no range of shapes', where="--shape-range", hint=hint)


def _check_fits(name: str, value: ir.Value, given: Range) -> None:
    own = dims(value)
    least, usual, most = given
    is_ordered = all(a <= b <= c for a, b, c in zip(least, usual, most, strict=False))
    is_fitting = own is None or all(
        len(shape) == len(own) and all(not isinstance(d, int) or d == s for d, s in zip(own, shape, strict=True))
        for shape in given
    )
    if not is_ordered or not is_fitting or len({len(shape) for shape in given}) > 1:
        shown = "x".join("?" if d is None else str(d) for d in own or ())
        spelt = ":".join("x".join(map(str, shape)) for shape in given)
        message = f"{spelt} does not fit {name}, which is {shown}" if is_ordered else f"{spelt} does not ascend"
        raise PrunecError("PC437", message, where="--shape-range", hint="least ≤ usual ≤ largest, on dynamic axes")


def _example(value: ir.Value) -> str:
    shape = dims(value) or ("batch",)

    def spell(batch: int, length: int) -> str:
        free = [length if axis else batch for axis in range(len(shape))]
        return "x".join(str(d) if isinstance(d, int) else str(free[axis]) for axis, d in enumerate(shape))

    return f"{spell(1, 32)}:{spell(8, 64)}:{spell(32, 128)}"
