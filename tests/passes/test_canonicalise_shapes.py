"""Shapes computed at run time become constants, with static and with dynamic axes."""

from __future__ import annotations

import onnx_ir as ir

from tests.passes.canonical_support import checked, operators, parse, with_weights


def target(model: ir.Model, op_type: str = "Reshape", index: int = 0, position: int = 1) -> list[int] | None:
    """The constant target of the index-th node of a type; None when it is computed at run time."""
    node = [node for node in model.graph if node.op_type == op_type][index]
    value = node.inputs[position]
    return value.const_value.numpy().tolist() if value.is_initializer() else None


FLATTEN = """agraph (float[{shape}] x) => (float[a,b] y) {{
    s = Shape (x)  i = Constant <value = int64 {{0}}> ()  n = Gather <axis = 0> (s, i)
    z = Constant <value = int64[1] {{0}}> ()  m = Constant <value = int64[1] {{-1}}> ()
    u = Unsqueeze (n, z)  t = Concat <axis = 0> (u, m)  y = Reshape (x, t)
}}"""


def test_static_flatten_is_constant() -> None:
    canonical = checked(parse(FLATTEN.format(shape="2,3,4")))
    assert operators(canonical) == {"Reshape": 1}
    assert target(canonical) == [2, -1]
    assert canonical.graph.node(0).outputs[0].shape == [2, 12]


def test_flatten_with_a_dynamic_batch_is_constant() -> None:
    canonical = checked(parse(FLATTEN.format(shape="N,3,4")), N=5)
    assert operators(canonical) == {"Reshape": 1}
    assert target(canonical) == [-1, 12]


HEADS = """agraph (float[b,s,32] x, float[32,32] w) => (float[b,s,32] y)
<int64 i0 = {0}, int64 i1 = {1}, int64[1] a0 = {0}, int64[1] h = {4}, int64[1] d = {8}, int64[1] hd = {32}> {
    q = MatMul (x, w)
    s1 = Shape (q)  b0 = Gather (s1, i0)  b1 = Unsqueeze (b0, a0)
    s2 = Shape (q)  n0 = Gather (s2, i1)  n1 = Unsqueeze (n0, a0)
    t1 = Concat <axis = 0> (b1, n1, h, d)  r1 = Reshape (q, t1)
    p1 = Transpose <perm = [0, 2, 1, 3]> (r1)
    k = Transpose <perm = [0, 1, 3, 2]> (p1)
    a = MatMul (p1, k)  f = Softmax (a)  v = MatMul (f, p1)
    p2 = Transpose <perm = [0, 2, 1, 3]> (v)
    t2 = Concat <axis = 0> (b1, n1, hd)  y = Reshape (p2, t2)
}"""


def test_attention_with_dynamic_batch_and_length_needs_no_shape() -> None:
    canonical = checked(with_weights(HEADS, {"w": (32, 32)}), b=2, s=7)
    assert operators(canonical)["Shape"] == 0
    assert target(canonical, index=0) == [0, 0, 4, 8]
    assert target(canonical, index=1) == [0, 0, 32]


def test_product_of_dynamic_axes_becomes_minus_one() -> None:
    model = parse(
        """agraph (float[b,s,6] x) => (float[m,6] y, float[b,s,6] z)
        <int64 i0 = {0}, int64 i1 = {1}, int64[1] a0 = {0}, int64[1] c = {6}> {
            sh = Shape (x)  b0 = Gather (sh, i0)  s0 = Gather (sh, i1)
            bs = Mul (b0, s0)  u = Unsqueeze (bs, a0)  t = Concat <axis = 0> (u, c)  r = Reshape (x, t)  y = Relu (r)
            ub = Unsqueeze (b0, a0)  us = Unsqueeze (s0, a0)
            t2 = Concat <axis = 0> (ub, us, c)  z = Reshape (y, t2)
        }"""
    )
    canonical = checked(model, b=2, s=5)
    assert target(canonical, index=0) == [-1, 6]
    assert target(canonical, index=1) is None
    assert operators(canonical)["Mul"] == 0


def test_window_partition_by_division_is_constant() -> None:
    model = parse(
        """agraph (float[B,8,8,3] x) => (float[w,4,4,3] y)
        <int64 i0 = {0}, int64 i1 = {1}, int64 four = {4}, int64[1] a0 = {0}, int64[2] wc = {4, 3}, int64[1] w4 = {4},
         int64[4] out = {-1, 4, 4, 3}> {
            s = Shape (x)  b = Gather (s, i0)  h = Gather (s, i1)  hw = Div (h, four)
            bu = Unsqueeze (b, a0)  hu = Unsqueeze (hw, a0)
            t = Concat <axis = 0> (bu, hu, w4, hu, wc)  r = Reshape (x, t)
            p = Transpose <perm = [0, 1, 3, 2, 4, 5]> (r)  y = Reshape (p, out)
        }"""
    )
    canonical = checked(model, B=3)
    assert target(canonical) == [-1, 2, 4, 2, 4, 3]
    assert list(canonical.graph)[-1].outputs[0].shape[1:] == (4, 4, 3)


def test_expand_over_a_dynamic_batch_gets_ones() -> None:
    model = parse(
        """agraph (float[N,1,4] x) => (float[N,3,4] y)
        <int64 i0 = {0}, int64[1] a0 = {0}, int64[2] tail = {3, 4}> {
            s = Shape (x)  n = Gather (s, i0)  u = Unsqueeze (n, a0)
            t = Concat <axis = 0> (u, tail)
            k = ConstantOfShape <value = int64[1] {1}> (l)  m = Mul (k, neg)  e = Equal (t, m)
            w = Where (e, k, t)  y = Expand (x, w)
        }""".replace("int64[2] tail", "int64[1] l = {3}, int64 neg = {-1}, int64[2] tail")
    )
    canonical = checked(model, N=2)
    assert operators(canonical) == {"Expand": 1}
    assert target(canonical, "Expand") == [1, 3, 4]


def test_resize_to_sizes_with_a_dynamic_batch_gets_scales() -> None:
    model = parse(
        """agraph (float[N,2,4,4] x) => (float[N,2,8,8] y)
        <int64[1] st = {0}, int64[1] en = {2}, int64[2] hw = {8, 8}, float[0] e = {}> {
            s = Shape (x)  nc = Slice (s, st, en)  t = Concat <axis = 0> (nc, hw)
            y = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> (x, e, e, t)
        }"""
    )
    canonical = checked(model, N=3)
    assert operators(canonical) == {"Resize": 1}
    assert target(canonical, "Resize", position=2) == [1, 1, 2, 2]


def test_resize_to_the_size_of_another_dynamic_map_keeps_static_channels() -> None:
    model = parse(
        """agraph (float[N,2,h,w] x, float[N,5,H,W] other) => (float[N,2,H,W] y)
        <int64[1] z = {0}, int64[1] two = {2}, int64[1] four = {4}, float[0] e = {}> {
            s = Shape (x)  nc = Slice (s, z, two)  o = Shape (other)  hw = Slice (o, two, four)
            t = Concat <axis = 0> (nc, hw)
            y = Resize <mode = "nearest"> (x, e, e, t)
        }"""
    )
    canonical = checked(model, N=1, h=2, w=3, H=4, W=6)
    resize = next(node for node in canonical.graph if node.op_type == "Resize")
    assert resize.outputs[0].shape == ["N", 2, "H", "W"]
    concats = [node for node in canonical.graph if node.op_type == "Concat"]
    constants = [v.const_value.numpy().tolist() for node in concats for v in node.inputs if v.is_initializer()]
    assert constants == [[2]]


def test_a_mixed_vector_is_split_into_constants_and_single_reads() -> None:
    model = parse(
        """agraph (float[N,4,h,w] x) => (float[a,b,c,d] y) <float v = {0.5}> {
            s = Shape (x)  n = ConstantOfShape <value = float[1] {0.5}> (s)  y = Add (x, n)
        }"""
    )
    canonical = checked(model, N=2, h=3, w=5)
    concat = next(node for node in canonical.graph if node.op_type == "Concat")
    constants = [v.const_value.numpy().tolist() for v in concat.inputs if v.is_initializer()]
    assert constants == [[4]]
    assert operators(canonical) == {"Shape": 2, "Concat": 1, "ConstantOfShape": 1, "Add": 1}


def test_stale_shapes_of_intermediate_values_are_not_believed() -> None:
    model = parse(FLATTEN.format(shape="N,3,4"))
    value = next(v for node in model.graph for v in node.outputs if v.name == "t")
    flat = next(v for node in model.graph for v in node.outputs if v.name == "y")
    value.shape, flat.shape = ir.Shape([2]), ir.Shape(["a", "b"])
    first = model.graph.node(0).outputs[0]
    first.shape = ir.Shape([7])
    assert target(checked(model, N=4)) == [-1, 12]


def test_shapes_inside_a_loop_body_are_known() -> None:
    model = parse(
        """agraph (float[4,3] x, int64 n) => (float[4,3] y, float[k,4,3] z) <bool c = {1}> {
            l, z = Loop (n, c, x) <body = b (int64 i, bool ci, float[4,3] v) => (bool co, float[4,3] vo, float[4,3] s) {
                co = Identity (ci)  one = Constant <value = float {1.0}> ()  vo = Add (v, one)  s = Relu (vo)
            }>
            y = Relu (l)
        }"""
    )
    feeds_trip_count = 5
    canonical = checked(model, n=feeds_trip_count)
    loop = next(node for node in canonical.graph if node.op_type == "Loop")
    assert loop.outputs[0].shape == [4, 3]
    assert loop.outputs[1].shape[1:] == (4, 3)


def test_integer_division_truncates_like_onnx() -> None:
    model = parse(
        """agraph (float[2,6] x) => (float[2,6] y, int64[4] d, int64[4] m, int64[4] f)
        <int64[4] a = {7, -7, 7, -7}, int64[4] b = {2, 2, -2, -2}> {
            d0 = Div (a, b)  m0 = Mod (a, b)  f0 = Mod <fmod = 1> (a, b)
            d1 = Add (d0, a)  m1 = Add (m0, a)  f1 = Add (f0, a)
            y = Relu (x)  d = Identity (d1)  m = Identity (m1)  f = Identity (f1)
        }"""
    )
    checked(model)


def test_a_reshape_with_zeros_and_an_empty_tensor_is_left_alone() -> None:
    model = parse(
        """agraph (float[N,0] x) => (float[a,b] y) <int64 i0 = {0}, int64[1] a0 = {0}, int64[1] z = {0}> {
            s = Shape (x)  n = Gather (s, i0)  u = Unsqueeze (n, a0)  t = Concat <axis = 0> (u, z)
            y = Reshape <allowzero = 1> (x, t)
        }"""
    )
    checked(model, N=3)


def test_values_get_types_and_shapes() -> None:
    canonical = checked(with_weights(HEADS, {"w": (32, 32)}), b=1, s=2)
    for node in canonical.graph:
        for value in node.outputs:
            assert value.type is not None
            assert value.shape is not None
    scores = next(node for node in canonical.graph if node.op_type == "Softmax").outputs[0]
    assert scores.dtype == ir.DataType.FLOAT
    assert scores.shape == ["b", 4, "s", "s"]
