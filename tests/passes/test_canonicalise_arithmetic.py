"""Every operator that is folded in numpy gives what ONNX Runtime gives, type and shape included."""

from __future__ import annotations

import pytest

from prunec.passes.canonicalise import arithmetic
from tests.passes.canonical_support import checked, operators, parse

CONSTANTS = """int64[4] a = {7, -7, 7, -7}, int64[4] b = {2, 2, -2, -2}, int64[2,3] m = {1, 2, 3, 4, 5, 6},
float[4] f = {1.5, -2.5, 0.5, 9.0}, float[4] g = {2.0, 0.3, -1.0, 4.0},
bool[4] p = {1, 0, 1, 0}, bool[4] q = {1, 1, 0, 0}, int32[3] k = {1, 2, 3},
int64[1] one = {1}, int64[1] zero = {0}, int64[1] minus = {-1}, int64[1] two = {2},
int64 s0 = {0}, int64 s1 = {1}, int64 s7 = {7}, int64 s3 = {3}, float h0 = {0.5}, float h1 = {3.1}, float h2 = {0.7},
int64[2] i = {1, -1}, int64[2] sh = {3, 2}, int64[2] sh0 = {0, -1}, int64[2] ax = {0, 1},
int64[1] far = {-9223372036854775807}, int64[3] e = {2, 2, 3}, int64[2] t = {2, 1}"""

EXPRESSIONS = {
    "Abs": "Abs (a)", "Neg": "Neg (f)", "Not": "Not (p)", "Floor": "Floor (f)", "Ceil": "Ceil (f)",
    "Sqrt": "Sqrt (h1)", "Add": "Add (a, b)", "Sub": "Sub (f, g)", "Mul": "Mul (m, s3)", "Div": "Div (a, b)",
    "Div float": "Div (f, g)", "Mod": "Mod (a, b)", "Mod fmod": "Mod <fmod = 1> (a, b)",
    "Mod float": "Mod <fmod = 1> (f, g)", "Equal": "Equal (a, b)", "Greater": "Greater (f, g)",
    "GreaterOrEqual": "GreaterOrEqual (a, b)", "Less": "Less (a, b)", "LessOrEqual": "LessOrEqual (f, g)",
    "And": "And (p, q)", "Or": "Or (p, q)", "Xor": "Xor (p, q)", "Max": "Max (a, b, s1)", "Min": "Min (f, g)",
    "Cast to float": "Cast <to = 1> (a)", "Cast to int": "Cast <to = 7> (f)", "Cast to bool": "Cast <to = 9> (f)",
    "Cast from bool": "Cast <to = 6> (p)", "Cast to half": "Cast <to = 10> (f)",
    "Concat": "Concat <axis = 0> (a, i, b)", "Concat last": "Concat <axis = -1> (m, m)",
    "Gather": "Gather (a, i)", "Gather scalar": "Gather (a, s3)", "Gather axis": "Gather <axis = 1> (m, i)",
    "Slice": "Slice (a, one, s_end)", "Slice axes": "Slice (m, one, far_end, one)",
    "Slice backwards": "Slice (a, minus, far, zero, minus)",
    "Slice backwards stop": "Slice (a, minus, zero, zero, minus)",
    "Slice negative": "Slice (a, neg3, minus)", "Slice steps": "Slice (a, zero, far_end, zero, two)",
    "Size": "Size (m)", "Shape": "Shape (m)", "Shape part": "Shape <start = -1> (m)",
    "Unsqueeze": "Unsqueeze (m, ax)", "Squeeze": "Squeeze (two)", "Squeeze axis": "Squeeze (two, zero)",
    "Range": "Range (s1, s7, s3)", "Range float": "Range (h0, h1, h2)", "Range down": "Range (s7, s1, sm2)",
    "ConstantOfShape": "ConstantOfShape (sh)", "ConstantOfShape int": "ConstantOfShape <value = int64[1] {5}> (sh)",
    "Reshape": "Reshape (m, sh)", "Reshape copy": "Reshape (m, sh0)", "Expand": "Expand (m, e)", "Tile": "Tile (m, t)",
    "Expand smaller": "Expand (m, one)", "Transpose": "Transpose (m)",
    "Transpose perm": "Transpose <perm = [1, 0]> (m)",
    "Where": "Where (p, a, b)", "Where broadcast": "Where (p, s1, a)", "ReduceProd": "ReduceProd <keepdims = 0> (m)",
    "ReduceProd axes": "ReduceProd <axes = [1]> (m)", "ReduceSum": "ReduceSum (m, one)",
    "ReduceMax": "ReduceMax <axes = [-1], keepdims = 0> (k)", "ReduceMin": "ReduceMin (m)", "Identity": "Identity (a)",
}  # fmt: skip
MORE = ", int64[1] s_end = {3}, int64[1] far_end = {9223372036854775807}, int64[1] neg3 = {-3}, int64 sm2 = {-2}"
TYPES = {
    "float": "Neg float,Floor,Ceil,Sqrt,Sub,Div float,Mod float,Cast to float,Range float,ConstantOfShape,Min,Neg",
    "bool": "Not,Equal,Greater,GreaterOrEqual,Less,LessOrEqual,And,Or,Xor,Cast to bool",
    "int32": "Cast from bool,ReduceMax",
    "float16": "Cast to half",
}
RANKS = {0: "Sqrt,Gather scalar,Size,Squeeze,Squeeze axis,ReduceProd,ReduceMax", 4: "Unsqueeze"}
MATRICES = (
    "Mul,Concat last,Gather axis,Slice axes,ConstantOfShape,ConstantOfShape int,Reshape,Reshape copy,Tile,"
    "Expand smaller,Transpose,Transpose perm,ReduceProd axes,ReduceSum,ReduceMin"
)


def declared_type(name: str) -> str:
    element = next((kind for kind, names in TYPES.items() if name in names.split(",")), "int64")
    rank = next((rank for rank, names in RANKS.items() if name in names.split(",")), 1)
    rank = 2 if name in MATRICES.split(",") else 3 if name == "Expand" else rank
    return f"{element}[{','.join('1abcd'[: rank + 1])}]"


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_numpy_agrees_with_onnx_runtime(name: str) -> None:
    model = parse(
        f"agraph (float[1] x) => (float[1] y, {declared_type(name)} z) <{CONSTANTS}{MORE}>"
        f"{{ y = Relu (x)  r = {EXPRESSIONS[name]}  z = Unsqueeze (r, zero) }}"
    )
    canonical = checked(model)
    assert operators(canonical) == {"Relu": 1, "Unsqueeze": 1}
    assert next(n for n in canonical.graph if n.op_type == "Unsqueeze").inputs[0].is_initializer()


def test_every_row_is_compared() -> None:
    compared = {expression.split(" ")[0] for expression in EXPRESSIONS.values()}
    assert set(arithmetic._TABLE) <= compared
