"""ONNX → fx.GraphModule: the numbers of ONNX Runtime, gradients, names, refusals."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import onnx_ir as ir
import pytest

from prunec.diagnostics import PrunecError
from prunec.passes.canonicalise import canonicalise
from tests.graph.builder import Builder
from tests.graph.checks import random_feeds, relative_error, run
from tests.graph.micros_image import IMAGES
from tests.graph.micros_sequence import SEQUENCES

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
from_ir = pytest.importorskip("prunec.torch.from_ir")

pytestmark = pytest.mark.torch
UNTRANSLATED = {"unknown_operator", "roi_align", "roi_pyramid"}
MICROS = {name: one for name, one in {**IMAGES, **SEQUENCES}.items() if name not in UNTRANSLATED}


def micro(name: str, seed: int = 0) -> ir.Model:
    b = Builder(seed, opset=MICROS[name].opset)
    MICROS[name].build(b)
    return canonicalise(b.model())


def outputs(module: object, feeds: dict[str, np.ndarray]) -> list[object]:
    found = module(*[torch.from_numpy(array) for array in feeds.values()])  # type: ignore[operator]
    return list(found) if isinstance(found, tuple) else [found]


def check(model: ir.Model, feeds: dict[str, np.ndarray] | None = None, tolerance: float = 1e-5) -> object:
    """The module of `model`, its outputs compared with ONNX Runtime's."""
    feeds = feeds or random_feeds(model, np.random.default_rng(1))
    module = from_ir.to_graph_module(model)
    want = run(model, feeds)
    got = outputs(module, feeds)
    assert [str(g.dtype).removeprefix("torch.") for g in got] == [str(w.dtype) for w in want]
    error = relative_error(want, [g.detach().numpy() for g in got])
    assert error <= tolerance, f"{error:.2e}"
    return module


@pytest.mark.parametrize("name", MICROS)
def test_micro_graphs_agree_and_every_parameter_gets_a_gradient(name: str) -> None:
    model = micro(name)
    feeds = random_feeds(model, np.random.default_rng(1))
    module = check(model, feeds)
    sum(out.square().sum() for out in outputs(module, feeds)).backward()
    without = [n for n, p in module.named_parameters() if p.grad is None or not bool(torch.isfinite(p.grad).all())]
    assert not without


def test_names_lead_back_and_nothing_is_shared_with_the_model() -> None:
    model = micro("residual")
    module = from_ir.to_graph_module(model)
    named = from_ir.names(module)
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    assert set(named) == set(tensors)
    assert set(named.values()) <= set(model.graph.initializers)
    for own, name in named.items():
        before = model.graph.initializers[name].const_value.numpy().copy()
        assert np.array_equal(tensors[own].detach().numpy(), before)
        with torch.no_grad():
            tensors[own].zero_()
        assert np.array_equal(model.graph.initializers[name].const_value.numpy(), before)


def test_names_that_python_cannot_have_are_replaced_and_kept_apart() -> None:
    b = Builder()
    x = b.input("x:0", [1, 3, 8, 8])
    first = b.op("Conv", [x, b.weight(4, 3, 3, 3, name="a/b.weight")])
    b.output(b.op("Conv", [first, b.weight(4, 4, 3, 3, name="a.b/weight")]))
    module = check(canonicalise(b.model()))
    assert from_ir.names(module) == {"a_b_weight": "a/b.weight", "a_b_weight_2": "a.b/weight"}


def test_copies_and_pickles_give_the_same_numbers() -> None:
    model = micro("lstm_both")
    feeds = random_feeds(model, np.random.default_rng(1))
    module = from_ir.to_graph_module(model)
    want = outputs(module, feeds)[0]
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(outputs(other, feeds)[0], want)
        assert from_ir.names(other) == from_ir.names(module)


def test_single_numbers_and_masks_are_buffers_unless_asked_for() -> None:
    b = Builder()
    x = b.linear(b.input("x", [2, 4]), 4)
    x = b.op("Mul", [x, b.const(np.float32(0.5), "factor")])
    mask = b.const(np.array([0, 0, 0, -np.inf], np.float32), "mask")
    b.output(b.op("Softmax", [b.op("Add", [x, mask])], axis=-1))
    model = canonicalise(b.model())
    parameters = {n for n, _ in from_ir.to_graph_module(model).named_parameters()}
    assert not parameters & {"factor", "mask"} and len(parameters) == 2
    asked = from_ir.to_graph_module(model, trainable=["factor"])
    assert "factor" in dict(asked.named_parameters())


def test_running_statistics_are_buffers() -> None:
    module = from_ir.to_graph_module(micro("bn_relu_conv"))
    buffers = [b for b in module.buffers() if b.is_floating_point()]
    assert [tuple(b.shape) for b in buffers] == [(16,), (16,)]


def test_the_batch_is_dynamic_where_the_model_says_so() -> None:
    b = Builder()
    x = b.relu(b.conv(b.input("x", [2, 3, 8, 8]), 8))
    b.output(b.gemm(b.op("Flatten", [b.op("GlobalAveragePool", [x])]), 5))
    model = b.model()
    model.graph.inputs[0].shape = ir.Shape(["n", 3, 8, 8])
    for node in model.graph:
        for value in node.outputs:
            value.shape = None
    model = canonicalise(model)
    for batch in (1, 7):
        check(model, {"x": np.random.default_rng(0).standard_normal((batch, 3, 8, 8)).astype(np.float32)})


def test_what_cannot_be_translated_is_listed() -> None:
    b = Builder()
    x = b.input("x", [1, 3, 8, 8])
    first = b.op("MaxPool", [x], outputs=2, kernel_shape=[2, 2])
    b.output(b.op("Hardmax", [x]), b.op("MaxUnpool", list(first), kernel_shape=[2, 2]))
    with pytest.raises(PrunecError) as caught:
        from_ir.to_graph_module(canonicalise(b.model()))
    found = caught.value.diagnostic
    assert found.code == "PC040"
    assert all(word in found.message for word in ("MaxPool (it returns indices)", "Hardmax", "MaxUnpool"))
    assert all(str(node) in str(found.where) for node in ("maxpool", "hardmax"))


def test_both_branches_of_an_if_are_there() -> None:
    import onnx
    from onnx import parser

    text = """
        <ir_version: 9, opset_import: ["" : 18]>
        g (float[2, 3] x, bool c) => (float[2, 4] y) <float[3, 4] w = {1,2,3,4,5,6,7,8,9,10,11,12}> {
            d = Add(x, x)
            y = If (c) <
                then_branch = t () => (float[2, 4] a) { a = MatMul(d, w) },
                else_branch = e () => (float[2, 4] b) { f = MatMul(x, w)  b = Neg(f) }
            >
        }
    """
    proto = parser.parse_model(text)
    onnx.checker.check_model(proto)
    model = canonicalise(ir.from_proto(proto))
    module = from_ir.to_graph_module(model)
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    for condition in (True, False):
        feeds = {"x": x, "c": np.array(condition)}
        got = outputs(module, feeds)[0].detach().numpy()
        assert relative_error(run(model, feeds), [got]) <= 1e-6
