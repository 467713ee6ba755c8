"""Models from ONNX text, and the comparison of a model with its canonical form."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir

from prunec.backends.onnx.session import make_session, run
from prunec.passes.canonicalise import canonicalise

FLOAT32_RELATIVE = 1e-5  # of the output's range


def parse(text: str, opset: int = 17) -> ir.Model:
    """`agraph (…) => (…) {…}` as a model. `w = Weight <seed, shape>` is not ONNX text: see `weight`."""
    head = f'<ir_version: 8, opset_import: ["" : {opset}]>\n'
    model = onnx.parser.parse_model(text if text.lstrip().startswith("<") else head + text)
    onnx.checker.check_model(model)
    return ir.from_proto(model)


def with_weights(text: str, weights: dict[str, tuple[int, ...]], opset: int = 17, dtype: type = np.float32) -> ir.Model:
    """Like `parse`, the graph inputs named in `weights` becoming initializers with seeded normal values."""
    model = parse(text, opset)
    rng = np.random.default_rng(0)
    for value in list(model.graph.inputs):
        if value.name in weights:
            array = rng.standard_normal(weights[value.name]).astype(dtype)
            if value.name.startswith("var"):
                array = np.abs(array) + dtype(0.5)
            value.const_value = ir.Tensor(array, name=value.name)
            model.graph.inputs.remove(value)
            model.graph.register_initializer(value)
    return model


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in ir.traversal.RecursiveGraphIterator(model.graph))


def random_feeds(model: ir.Model, seed: int = 0, **dims: int) -> dict[str, np.ndarray]:
    """Seeded inputs; `dims` gives sizes to named dynamic axes (default 3)."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for value in model.graph.inputs:
        if value.name in model.graph.initializers:
            continue
        shape = [d if isinstance(d, int) else dims.get(d.value or "", 3) for d in value.shape]
        dtype = value.dtype.numpy()
        if dtype.kind == "f":
            feeds[value.name] = rng.standard_normal(shape).astype(dtype)
        elif dtype.kind == "b" or "mask" in value.name:
            feeds[value.name] = np.ones(shape, dtype)
        else:
            feeds[value.name] = rng.integers(0, 5, shape).astype(dtype)
    return feeds


def assert_same(model: ir.Model, canonical: ir.Model, tolerance: float = FLOAT32_RELATIVE, **dims: int) -> None:
    feeds = random_feeds(model, **dims)
    expected = run(make_session(model, optimise=False), feeds)
    actual = run(make_session(canonical, optimise=False), feeds)
    assert list(expected) == list(actual)
    for name, want in expected.items():
        assert actual[name].shape == want.shape
        assert actual[name].dtype == want.dtype
        if want.dtype.kind == "f" and want.size:
            scale = float(np.abs(want[np.isfinite(want)]).max(initial=0)) or 1.0
            error = float(np.nanmax(np.abs(actual[name].astype(np.float64) - want)))
            assert error <= tolerance * scale, f"{name}: {error / scale:.1e} of the range"
        else:
            assert np.array_equal(actual[name], want)


def assert_canonical(model: ir.Model) -> None:
    """The promises of `canonicalise` that hold for every model."""
    nodes = list(ir.traversal.RecursiveGraphIterator(model.graph))
    names = [node.name for node in nodes]
    assert all(names)
    assert len(names) == len(set(names))
    values = [v.name for graph in model.graphs() for v in [*graph.inputs, *graph.initializers.values()]]
    values += [v.name for node in nodes for v in node.outputs if v.name]
    assert len(values) == len(set(values)) + sum(v in model.graph.initializers for v in map(_name, model.graph.inputs))
    assert not model.functions
    assert not any(node.op_type == "Constant" for node in model.graph)


def _name(value: ir.Value) -> str:
    return str(value.name)


def checked(model: ir.Model, *, gemm: bool = False, **dims: int) -> ir.Model:
    """Canonicalise, check the promises and the numbers, and that the input is as before."""
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    canonical = canonicalise(model, gemm=gemm)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    assert_canonical(canonical)
    onnx.checker.check_model(ir.to_proto(canonical))
    assert_same(model, canonical, **dims)
    return canonical
