"""What canonicalise does to small graphs: structure, and the same numbers."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from prunec.passes.canonicalise import canonicalise
from prunec.passes.canonicalise.fold_batchnorm import BN_SCALE
from prunec.passes.canonicalise.opset import WARNINGS
from tests.passes.canonical_support import assert_same, checked, operators, parse, with_weights

BN = "scale, beta, mean, var"
BN_INPUTS = "float[8] scale, float[8] beta, float[8] mean, float[8] var"
BN_SHAPES = {"scale": (8,), "beta": (8,), "mean": (8,), "var": (8,)}


def test_constants_are_lifted_and_noops_are_gone() -> None:
    model = parse(
        """agraph (float[2,4] x) => (float[2,4] y) {
            c = Constant <value = float[4] {1, 2, 3, 4}> ()
            i = Identity (c)
            a = Add (x, i)
            d = Dropout (a)
            e = Cast <to = 1> (d)
            y = Identity (e)
        }"""
    )
    canonical = checked(model)
    assert operators(canonical) == {"Add": 1}
    assert list(canonical.graph.initializers) == ["c"]
    assert canonical.graph.outputs[0].name == "y"


def test_identity_between_interface_values_stays() -> None:
    model = parse("agraph (float[2] x) => (float[2] y, float[2] z) { y = Relu (x)  z = Identity (x) }")
    assert operators(checked(model)) == {"Relu": 1, "Identity": 1}


def test_one_value_for_two_outputs_keeps_one_identity() -> None:
    model = parse("agraph (float[2] x) => (float[2] y, float[2] z) { r = Relu (x) y = Identity (r) z = Identity (r) }")
    canonical = checked(model)
    assert [v.name for v in canonical.graph.outputs] == ["y", "z"]
    assert operators(canonical) == {"Relu": 1, "Identity": 1}


def test_names_become_unique_and_own_names_are_kept() -> None:
    model = parse("agraph (float[2] x) => (float[2] y) { a = Relu (x) b = Relu (a) y = Relu (b) }")
    nodes = list(model.graph)
    nodes[0].name = nodes[1].name = "mine"
    nodes[2].name = ""
    canonical = canonicalise(model)  # ONNX Runtime refuses the duplicates, so there are no numbers to compare with
    assert [node.name for node in canonical.graph] == ["mine", "mine_2", "Relu"]


def test_functions_are_inlined() -> None:
    model = parse(
        """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        agraph (float[2] x) => (float[2] y) { a = local.twice (x)  y = local.twice (a) }
        <opset_import: ["" : 17], domain: "local"> twice (v) => (w) { w = Add (v, v) }"""
    )
    assert operators(checked(model)) == {"Add": 2}


@pytest.mark.parametrize("has_bias", [True, False])
def test_batchnorm_goes_into_a_convolution(has_bias: bool) -> None:
    bias = ", float[8] b" if has_bias else ""
    model = with_weights(
        f"agraph (float[1,3,6,6] x, float[8,3,3,3] w{bias}, {BN_INPUTS}) => (float[1,8,6,6] y) {{"
        f"c = Conv <pads = [1,1,1,1]> (x, w{', b' if has_bias else ''}) y = BatchNormalization (c, {BN}) }}",
        {"w": (8, 3, 3, 3), "b": (8,), **BN_SHAPES},
    )
    canonical = checked(model)
    assert operators(canonical) == {"Conv": 1}
    weight = next(iter(canonical.graph)).inputs[1]
    gamma = model.graph.initializers["scale"].const_value.numpy()
    assert weight.name == "w"
    assert np.array_equal(weight.meta[BN_SCALE], gamma)
    copy = next(iter(canonical.clone().graph)).inputs[1]
    assert np.array_equal(copy.meta[BN_SCALE], gamma)
    assert canonical.graph.outputs[0].name == "y"


def test_batchnorm_goes_into_a_grouped_transposed_convolution() -> None:
    model = with_weights(
        f"agraph (float[1,4,5,5] x, float[4,4,3,3] w, {BN_INPUTS}) => (float[1,8,7,7] y) {{"
        f"c = ConvTranspose <group = 2> (x, w) y = BatchNormalization (c, {BN}) }}",
        {"w": (4, 4, 3, 3), **BN_SHAPES},
    )
    assert operators(checked(model)) == {"ConvTranspose": 1}


@pytest.mark.parametrize("transposed", [0, 1])
def test_batchnorm_goes_into_a_gemm(transposed: int) -> None:
    shape = (8, 5) if transposed else (5, 8)
    model = with_weights(
        f"agraph (float[N,5] x, float[{shape[0]},{shape[1]}] w, {BN_INPUTS}) => (float[N,8] y) {{"
        f"c = Gemm <transB = {transposed}> (x, w) y = BatchNormalization (c, {BN}) }}",
        {"w": shape, **BN_SHAPES},
    )
    assert operators(checked(model)) == {"Gemm": 1}


@pytest.mark.parametrize("has_bias", [True, False])
def test_batchnorm_goes_into_a_matmul(has_bias: bool) -> None:
    body = "m = MatMul (x, w) c = Add (b, m)" if has_bias else "c = MatMul (x, w)"
    bias = ", float[8] b" if has_bias else ""
    model = with_weights(
        f"agraph (float[N,5] x, float[5,8] w{bias}, {BN_INPUTS}) => (float[N,8] y) {{"
        f"{body} y = BatchNormalization (c, {BN}) }}",
        {"w": (5, 8), "b": (8,), **BN_SHAPES},
    )
    assert operators(checked(model)) == {"MatMul": 1, "Add": 1}


@pytest.mark.parametrize(("shape", "has_bias"), [("1,8,1,1", False), ("8,1,1", True), ("1", False)])
def test_a_bias_added_afterwards_becomes_the_convolutions_own(shape: str, has_bias: bool) -> None:
    bias = ", float[8] b" if has_bias else ""
    model = with_weights(
        f"agraph (float[N,3,6,6] x, float[8,3,3,3] w{bias}, float[{shape}] c, {BN_INPUTS}) => (float[N,8,4,4] y) {{"
        f"d = Conv (x, w{', b' if has_bias else ''}) e = Add (c, d) y = BatchNormalization (e, {BN}) }}",
        {"w": (8, 3, 3, 3), "b": (8,), "c": tuple(int(d) for d in shape.split(",")), **BN_SHAPES},
    )
    assert operators(checked(model)) == {"Conv": 1}


def test_a_constant_that_varies_over_the_image_stays() -> None:
    model = with_weights(
        "agraph (float[1,3,6,6] x, float[8,3,3,3] w, float[1,8,4,1] c) => (float[1,8,4,4] y) {"
        "d = Conv (x, w) y = Add (d, c) }",
        {"w": (8, 3, 3, 3), "c": (1, 8, 4, 1)},
    )
    assert operators(checked(model)) == {"Conv": 1, "Add": 1}


def test_a_reader_of_the_shape_does_not_keep_a_batchnorm() -> None:
    model = with_weights(
        f"agraph (float[N,3,h,w] x, float[8,3,3,3] k, {BN_INPUTS}) => (float[N,8,a,b] y, int64[4] s) {{"
        f"d = Conv (x, k) s = Shape (d) y = BatchNormalization (d, {BN}) }}",
        {"k": (8, 3, 3, 3), **BN_SHAPES},
    )
    assert operators(checked(model, h=5, w=6)) == {"Conv": 1, "Shape": 1}


def test_a_shared_weight_is_copied_before_it_is_scaled() -> None:
    model = with_weights(
        f"agraph (float[1,8,6,6] x, float[8,8,1,1] w, {BN_INPUTS}) => (float[1,8,6,6] y) {{"
        f"c = Conv (x, w) n = BatchNormalization (c, {BN}) y = Conv (n, w) }}",
        {"w": (8, 8, 1, 1), **BN_SHAPES},
    )
    canonical = checked(model)
    assert operators(canonical) == {"Conv": 2}
    assert len({node.inputs[1].name for node in canonical.graph}) == 2


@pytest.mark.parametrize(
    "body",
    [
        f"n = BatchNormalization (x, {BN}) y = Conv (n, w)",  # in front of the convolution
        f"c = Conv (x, w) r = Relu (c) n = BatchNormalization (c, {BN}) y = Add (r, n)",  # two readers
    ],
)
def test_batchnorm_that_cannot_be_folded_stays(body: str) -> None:
    model = with_weights(
        f"agraph (float[1,8,6,6] x, float[8,8,1,1] w, {BN_INPUTS}) => (float[1,8,6,6] y) {{ {body} }}",
        {"w": (8, 8, 1, 1), **BN_SHAPES},
    )
    assert operators(checked(model))["BatchNormalization"] == 1


@pytest.mark.parametrize("batch", ["1", "N"])
def test_channel_shuffle_becomes_a_gather(batch: str) -> None:
    model = parse(
        f"""agraph (float[{batch},6,4,5] x) => (float[{batch},6,4,5] y)
        <int64[5] a = {{-1, 2, 3, 4, 5}}, int64[4] b = {{-1, 6, 4, 5}}> {{
            r = Reshape (x, a)  t = Transpose <perm = [0, 2, 1, 3, 4]> (r)  y = Reshape (t, b)
        }}"""
    )
    canonical = checked(model)
    gather = next(iter(canonical.graph))
    assert operators(canonical) == {"Gather": 1}
    assert gather.attributes["axis"].as_int() == 1
    assert gather.inputs[1].const_value.numpy().tolist() == [0, 3, 1, 4, 2, 5]


def test_a_transpose_that_is_no_shuffle_stays() -> None:
    model = parse(
        """agraph (float[1,4,4,4] x) => (float[1,4,4,4] y)
        <int64[5] a = {1, 2, 2, 4, 4}, int64[4] b = {1, 4, 4, 4}> {
            r = Reshape (x, a)  t = Transpose <perm = [0, 1, 3, 2, 4]> (r)  y = Reshape (t, b)
        }"""
    )
    assert operators(checked(model)) == {"Reshape": 2, "Transpose": 1}


def test_matmul_and_add_become_a_gemm_only_when_asked() -> None:
    text = "agraph (float[N,4] x, float[4,3] w, float[3] b) => (float[N,3] y) { m = MatMul (x, w) y = Add (m, b) }"
    model = with_weights(text, {"w": (4, 3), "b": (3,)})
    assert operators(checked(model)) == {"MatMul": 1, "Add": 1}
    assert operators(checked(model, gemm=True)) == {"Gemm": 1}
    rank3 = with_weights(text.replace("[N,", "[N,2,"), {"w": (4, 3), "b": (3,)})
    assert operators(checked(rank3, gemm=True)) == {"MatMul": 1, "Add": 1}


@pytest.mark.parametrize("opset", [9, 10, 11, 12])
def test_old_opsets_are_raised_to_13(opset: int) -> None:
    model = with_weights(
        "agraph (float[1,3,6,6] x, float[8,3,3,3] w) => (float[1,8,8] y) {"
        "c = Conv <pads = [1,1,1,1]> (x, w) d = ReduceMean <axes = [2], keepdims = 0> (c)"
        "e = Squeeze <axes = [0]> (d) f = Unsqueeze <axes = [0]> (e)"
        "g = Slice <starts = [0], ends = [4], axes = [2]> (f) y = Concat <axis = 2> (g, g) }"
        if opset == 9
        else "agraph (float[1,3,6,6] x, float[8,3,3,3] w) => (float[1,8,6] y) {"
        "c = Conv <pads = [1,1,1,1]> (x, w) d = ReduceMean <axes = [2], keepdims = 0> (c)"
        "e = Squeeze <axes = [0]> (d) y = Unsqueeze <axes = [0]> (e) }",
        {"w": (8, 3, 3, 3)},
        opset=opset,
    )
    canonical = checked(model)
    assert canonical.graph.opset_imports[""] == 13


def test_opset_9_upsample_still_works() -> None:
    model = with_weights(
        "agraph (float[1,3,6,6] x, float[8,3,3,3] w) => (float[1,8,12,12] y)"
        '<float[4] s = {1, 1, 2, 2}> { c = Conv <pads = [1,1,1,1]> (x, w) y = Upsample <mode = "nearest"> (c, s) }',
        {"w": (8, 3, 3, 3)},
        opset=9,
    )
    canonical = checked(model)
    assert operators(canonical) == {"Conv": 1, "Resize": 1}
    assert WARNINGS not in canonical.graph.meta


def test_an_opset_that_cannot_be_raised_is_kept_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no adapter")

    monkeypatch.setattr(onnx.version_converter, "convert_version", refuse)
    canonical = checked(parse("agraph (float[2] x) => (float[2] y) { y = Relu (x) }", opset=11))
    assert canonical.graph.opset_imports[""] == 11
    [warning] = canonical.graph.meta[WARNINGS]
    assert warning.code == "PC020"
    assert "no adapter" in warning.message
    assert warning.hint


def test_weights_are_shared_and_not_copied() -> None:
    model = with_weights(
        "agraph (float[1,3,6,6] x, float[8,3,3,3] w) => (float[1,8,4,4] y) { y = Conv (x, w) }", {"w": (8, 3, 3, 3)}
    )
    canonical = canonicalise(model)
    assert canonical.graph.initializers["w"].const_value is model.graph.initializers["w"].const_value


def test_a_large_constant_expression_is_folded_unless_it_grows() -> None:
    model = with_weights(
        "agraph (float[2,64] x, float[64,64] w) => (float[2,64] y, float[3000000] z) <int64[1] n = {3000000}> {"
        "t = Transpose <perm = [1, 0]> (w) y = MatMul (x, t) e = Expand (s, n) z = Relu (e) }".replace(
            "<int64[1] n", "<float[1] s = {1}, int64[1] n"
        ),
        {"w": (64, 64)},
    )
    canonical = checked(model)
    assert operators(canonical) == {"MatMul": 1, "Expand": 1, "Relu": 1}
    transposed = next(node for node in canonical.graph if node.op_type == "MatMul").inputs[1]
    assert np.array_equal(transposed.const_value.numpy(), model.graph.initializers["w"].const_value.numpy().T)


def test_random_operators_are_not_folded() -> None:
    model = parse(
        "agraph (float[2] x) => (float[2] y) { r = RandomNormal <shape = [2]> () z = Mul (r, r) y = Add (x, z) }"
    )
    assert operators(canonicalise(model))["RandomNormal"] == 1


def test_an_if_with_a_constant_condition_is_inlined() -> None:
    model = parse(
        """agraph (float[2,3] x) => (float[2,3] y) {
            s = Shape (x)  i = Constant <value = int64 {0}> ()  d = Gather (s, i)
            two = Constant <value = int64 {2}> ()  c = Equal (d, two)
            z = If (c) <
                then_branch = t () => (float[2,3] a) { a = Relu (x) },
                else_branch = e () => (float[2,3] b) { b = Neg (x) }
            >
            y = Abs (z)
        }"""
    )
    assert operators(checked(model)) == {"Relu": 1, "Abs": 1}


def test_an_if_decided_at_run_time_keeps_both_branches() -> None:
    model = parse(
        """agraph (float[2,3] x, bool c) => (float[2,3] y) {
            z = If (c) <
                then_branch = t () => (float[2,3] a) { k = Constant <value = float {2.0}> () a = Mul (x, k) },
                else_branch = e () => (float[2,3] b) { b = Neg (x) }
            >
            y = Abs (z)
        }"""
    )
    canonical = checked(model)
    assert operators(canonical) == {"If": 1, "Mul": 1, "Neg": 1, "Abs": 1}
    assert next(iter(canonical.graph)).outputs[0].shape == [2, 3]


def test_a_custom_operator_is_left_alone() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "acme" : 1]>'
        "agraph (float[2] x) => (float[2] y) { a = Relu (x) b = acme.magic (a) y = Relu (b) }"
    )
    assert operators(canonicalise(ir.from_proto(proto))) == {"Relu": 2, "magic": 1}


def test_float16_models_keep_their_type() -> None:
    model = with_weights(
        f"agraph (float16[1,3,6,6] x, float16[8,3,3,3] w, {BN_INPUTS.replace('float', 'float16')}) =>"
        f" (float16[1,8,4,4] y) {{ c = Conv (x, w) y = BatchNormalization (c, {BN}) }}",
        {"w": (8, 3, 3, 3), **BN_SHAPES},
        dtype=np.float16,
    )
    canonical = canonicalise(model)
    assert operators(canonical) == {"Conv": 1}
    assert canonical.graph.initializers["w"].dtype == ir.DataType.FLOAT16
    assert_same(model, canonical, tolerance=5e-3)


def test_the_comparison_sees_a_planted_error() -> None:
    model = with_weights(
        "agraph (float[1,3,6,6] x, float[8,3,3,3] w) => (float[1,8,4,4] y) { y = Conv (x, w) }", {"w": (8, 3, 3, 3)}
    )
    canonical = canonicalise(model)
    array = canonical.graph.initializers["w"].const_value.numpy().copy()
    array[3, 1, 1, 1] += 1e-3
    canonical.graph.initializers["w"].const_value = ir.Tensor(array, name="w")
    with pytest.raises(AssertionError, match="of the range"):
        assert_same(model, canonical)


def test_the_weights_of_an_unrolled_loop_stay_tied() -> None:
    """Every step transposes the same weight anew, with axes of its own; an equal weight of another layer is another."""
    model = with_weights(
        """agraph (float[2,4] x, float[4,4] w, float[4,4] twin) => (float[2,4] y)
        <int64[2] s = {4, 4}, int64[2] t = {4, 4}> {
            a1 = Reshape (w, s)
            t1 = Transpose <perm = [1, 0]> (a1)
            h1 = MatMul (x, t1)
            a2 = Reshape (w, t)
            t2 = Transpose <perm = [1, 0]> (a2)
            h2 = MatMul (h1, t2)
            u = Transpose <perm = [1, 0]> (twin)
            y = MatMul (h2, u)
        }""",
        {"w": (4, 4), "twin": (4, 4)},
    )
    model.graph.initializers["twin"].const_value = model.graph.initializers["w"].const_value
    canonical = checked(model)
    assert operators(canonical) == {"MatMul": 3}
    used = sorted(len(list(value.uses())) for value in canonical.graph.initializers.values())
    assert used == [1, 2]
