"""Reading ONNX files: what comes back, and each refusal with its place and hint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunec.diagnostics import PrunecError
from prunec.frontend.input_shapes import apply_input_shapes, common_shapes, complete_shapes, parse_shape_sets
from prunec.frontend.onnx import load, parse_input_shapes
from tests.frontend.models import conv_model, save, save_external, set_external, text_model


def refused(path: Path, code: str, **arguments: object) -> PrunecError:
    with pytest.raises(PrunecError) as caught:
        load(path, **arguments)
    diagnostic = caught.value.diagnostic
    assert diagnostic.code == code, diagnostic
    assert diagnostic.hint
    assert diagnostic.where
    return caught.value


def test_a_model_comes_back_with_its_hash(tmp_path: Path) -> None:
    path = save(conv_model(), tmp_path / "m.onnx")
    source = load(path)
    assert source.path == path
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert source.warnings == []
    assert source.model.graph.inputs[0].shape == ["N", 3, 8, 8]


def test_a_path_may_be_a_string(tmp_path: Path) -> None:
    assert load(str(save(conv_model(), tmp_path / "m.onnx"))).model.graph.outputs[0].name == "y"


def test_the_file_is_not_touched(tmp_path: Path) -> None:
    path = save_external(tmp_path / "m.onnx")
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in tmp_path.iterdir()}
    load(path, input_shapes={"x": [1, 3, 8, 8]})
    assert {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in tmp_path.iterdir()} == before


def test_external_data_is_mapped_and_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_external(tmp_path / "m.onnx")
    first = load(path)
    tensor = first.model.graph.initializers["w"].const_value
    assert isinstance(tensor, ir.ExternalTensor)
    expected = conv_model().graph.initializer[0]
    assert np.array_equal(tensor.numpy(), numpy_helper.to_array(expected))
    monkeypatch.chdir(tmp_path)
    assert load(Path("m.onnx")).sha256 == first.sha256
    data = bytearray((tmp_path / "weights.bin").read_bytes())
    data[0] ^= 1
    (tmp_path / "weights.bin").write_bytes(data)
    assert load(path).sha256 != first.sha256


def test_external_data_in_a_subfolder_is_fine(tmp_path: Path) -> None:
    path = save_external(tmp_path / "m.onnx")
    (tmp_path / "data").mkdir()
    (tmp_path / "weights.bin").rename(tmp_path / "data" / "weights.bin")
    model = onnx.load(path, load_external_data=False)
    set_external(model.graph.initializer[0], location="data/weights.bin")
    assert load(save(model, path)).model.graph.initializers["w"].const_value.numpy().shape == (4, 3, 3, 3)


@pytest.mark.parametrize("opset", [9, 13, onnx.defs.onnx_opset_version()])
def test_opsets_from_9_to_the_newest(tmp_path: Path, opset: int) -> None:
    head = f'<ir_version: 8, opset_import: ["" : {opset}]>'
    model = text_model(head + "g (float[2] x) => (float[2] y) { y = Relu (x) }")
    assert load(save(model, tmp_path / "m.onnx")).model.opset_imports[""] == opset


def test_float16_constant_nodes_and_subgraphs(tmp_path: Path) -> None:
    model = text_model(
        """g (float16[2,3] x, bool c) => (float16[2,3] y) {
            k = Constant <value = float16[3] {1, 2, 3}> ()
            y = If (c) <
                then_branch = t () => (float16[2,3] a) { a = Add (x, k) },
                else_branch = e () => (float16[2,3] b) { b = Mul (x, k) }
            >
        }"""
    )
    assert load(save(model, tmp_path / "m.onnx")).model.graph.inputs[0].dtype == ir.DataType.FLOAT16


def test_nodes_may_come_in_any_order(tmp_path: Path) -> None:
    model = text_model("g (float[2] x) => (float[2] y) { a = Relu (x) y = Neg (a) }")
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    assert [node.op_type for node in load(save(model, tmp_path / "m.onnx")).model.graph] == ["Relu", "Neg"]


def test_a_custom_operator_is_a_warning(tmp_path: Path) -> None:
    model = text_model(
        '<ir_version: 8, opset_import: ["" : 17, "acme" : 1]> g (float[2] x) => (float[2] y) '
        "{ a = acme.magic (x) b = acme.magic (a) y = Relu (b) }"
    )
    model.graph.node[0].name = "first"
    [warning] = load(save(model, tmp_path / "m.onnx")).warnings
    assert (warning.code, warning.where) == ("PC019", "first")
    assert "magic" in warning.message
    assert warning.hint


def test_input_shapes_make_axes_static_everywhere(tmp_path: Path) -> None:
    path = save(conv_model(), tmp_path / "m.onnx")
    model = load(path, input_shapes={"x": [5, 3, 8, 8]}).model
    assert model.graph.inputs[0].shape == [5, 3, 8, 8]
    assert model.graph.outputs[0].shape == [5, 4, 6, 6]
    assert load(path).model.graph.inputs[0].shape == ["N", 3, 8, 8]


def test_input_shapes_are_parsed() -> None:
    assert parse_input_shapes(["x=1,3,224,224", "a:b=7", "s="]) == {"x": [1, 3, 224, 224], "a:b": [7], "s": []}
    assert parse_input_shapes([]) == {}


@pytest.mark.parametrize("text", ["x", "=1,2", "x=1,a", "x=0,3", "x=1,,2", "x=-1"])
def test_input_shapes_that_cannot_be_read(text: str) -> None:
    with pytest.raises(PrunecError) as caught:
        parse_input_shapes([text])
    assert (caught.value.diagnostic.code, caught.value.diagnostic.where) == ("PC016", "--input-shape")
    assert caught.value.diagnostic.hint


def test_several_shapes_of_an_input() -> None:
    """The nth mention belongs to the nth shape, what is given once to all; what they differ in stays dynamic."""
    sets = parse_shape_sets(["x=1,3", "m=7", "x=8,3"])
    assert sets == [{"x": [1, 3], "m": [7]}, {"x": [8, 3], "m": [7]}]
    assert common_shapes(sets) == {"x": [None, 3], "m": [7]}
    for texts in (["x=1", "x=2", "y=1", "y=2", "y=3"],):
        with pytest.raises(PrunecError, match=r"PC016.*2 times and another input 3 times"):
            parse_shape_sets(texts)
    for uneven in ([{"x": [1]}, {"x": [1, 2]}], [{"x": [1]}, {}]):
        with pytest.raises(PrunecError, match=r"PC016.*as many axes"):
            common_shapes(uneven)


def test_shapes_reach_inputs_that_share_the_names_of_their_axes(tmp_path: Path) -> None:
    text = "g (float[N, T] a, float[N, T] b, float[K] c, float[2] d) => (float[N, T] y) { y = Add (a, b) }"
    model = load(save(text_model(text), tmp_path / "m.onnx")).model
    assert complete_shapes(model, {"a": [1, 64]}) == {"a": [1, 64], "b": [1, 64], "d": [2]}
    assert model.graph.inputs[0].shape == ["N", "T"], "the model stays as it is"
    apply_input_shapes(model, {"a": [None, 64]})
    assert [value.shape for value in model.graph.inputs[:2]] == [["N", 64], ["N", 64]]
    with pytest.raises(PrunecError, match="PC017"):
        complete_shapes(model, {"a": [1, 32]})


def test_an_input_given_twice() -> None:
    with pytest.raises(PrunecError, match="twice"):
        parse_input_shapes(["x=1", "x=2"])


@pytest.mark.parametrize(
    ("shapes", "where"),
    [({"z": [1]}, "z"), ({"x": [1, 3]}, "x"), ({"x": [1, 4, 8, 8]}, "x"), ({"w": [4, 3, 3, 3]}, "w")],
)
def test_input_shapes_that_do_not_fit(tmp_path: Path, shapes: dict[str, list[int]], where: str) -> None:
    error = refused(save(conv_model(), tmp_path / "m.onnx"), "PC017", input_shapes=shapes)
    assert error.diagnostic.where == where


def test_one_axis_name_cannot_get_two_sizes(tmp_path: Path) -> None:
    model = text_model("g (float[N] a, float[N] b) => (float[N] y) { y = Add (a, b) }")
    refused(save(model, tmp_path / "m.onnx"), "PC017", input_shapes={"a": [2], "b": [3]})


def test_not_a_file(tmp_path: Path) -> None:
    assert "no such file" in str(refused(tmp_path / "missing.onnx", "PC001"))
    assert "directory" in str(refused(tmp_path, "PC001"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file(tmp_path: Path) -> None:
    path = save(conv_model(), tmp_path / "m.onnx")
    path.chmod(0)
    refused(path, "PC001")


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").touch()
    refused(tmp_path / "m.onnx", "PC002")


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"hello, this is a text file\n" * 20, "text"),
        (b"\x1f\x8b" + bytes(100), "gzip"),
        (b"PK\x03\x04" + bytes(100), "zip"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "lfs"),
        (bytes(64), "again"),
        (b"\n", "text"),
        (b'{"ir_version": 8}', "text"),
    ],
)
def test_not_an_onnx_file(tmp_path: Path, content: bytes, hint: str) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    assert hint in str(refused(tmp_path / "m.onnx", "PC003").diagnostic.hint)


def _without(field: str) -> Callable[[onnx.ModelProto], None]:
    return lambda model: model.ClearField(field)


@pytest.mark.parametrize("field", ["graph", "ir_version", "opset_import"])
def test_an_incomplete_model(tmp_path: Path, field: str) -> None:
    refused(save(conv_model(), tmp_path / "m.onnx", _without(field)), "PC004")


def test_a_graph_that_is_not_valid(tmp_path: Path) -> None:
    def dangle(model: onnx.ModelProto) -> None:
        model.graph.node[0].input[0] = "nowhere"

    assert "nowhere" in str(refused(save(conv_model(), tmp_path / "m.onnx", dangle), "PC005"))

    def cycle(model: onnx.ModelProto) -> None:
        model.graph.node[0].input[0] = "y"

    refused(save(conv_model(), tmp_path / "m.onnx", cycle), "PC005")


@pytest.mark.parametrize(
    "location", ["../weights.bin", "/etc/hostname", "a/../../weights.bin", "link.bin", "dir/x.bin"]
)
def test_external_data_outside_the_folder(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = save_external(folder / "m.onnx")
    (tmp_path / "weights.bin").write_bytes(bytes(10_000))
    (tmp_path / "x.bin").write_bytes(bytes(10_000))
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    (folder / "dir").symlink_to(tmp_path)
    model = onnx.load(path, load_external_data=False)
    set_external(model.graph.initializer[0], location=location)
    assert refused(save(model, path), "PC006").diagnostic.where == "w"


def test_external_data_that_is_a_hard_link(tmp_path: Path) -> None:
    path = save_external(tmp_path / "m.onnx")
    os.link(tmp_path / "weights.bin", tmp_path / "other.bin")
    assert refused(path, "PC006").diagnostic.where == "w"


def test_external_data_that_is_missing(tmp_path: Path) -> None:
    path = save_external(tmp_path / "m.onnx")
    (tmp_path / "weights.bin").unlink()
    assert refused(path, "PC007").diagnostic.where == "w"


@pytest.mark.parametrize(
    "entries",
    [
        {"location": "weights.bin", "offset": 8},
        {"location": "weights.bin", "offset": -4},
        {"location": "weights.bin", "offset": "many"},
        {"location": "weights.bin", "offset": 0, "length": 4},
        {"location": ""},
        {"offset": 0},
    ],
)
def test_external_data_that_is_too_short(tmp_path: Path, entries: dict[str, object]) -> None:
    path = save_external(tmp_path / "m.onnx")
    model = onnx.load(path, load_external_data=False)
    set_external(model.graph.initializer[0], **entries)
    assert refused(save(model, path), "PC008").diagnostic.where == "w"


def test_a_graph_without_outputs(tmp_path: Path) -> None:
    refused(save(conv_model(), tmp_path / "m.onnx", lambda model: model.graph.ClearField("output")), "PC009")


@pytest.mark.parametrize("opset", [1, 8, 999])
def test_an_opset_that_is_not_supported(tmp_path: Path, opset: int) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = opset

    assert str(opset) in str(refused(save(conv_model(), tmp_path / "m.onnx", change), "PC010"))


def test_an_output_that_nothing_computes(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.output[0].name = "elsewhere"

    assert refused(save(conv_model(), tmp_path / "m.onnx", change), "PC009").diagnostic.where == "elsewhere"


def test_an_opset_that_is_not_imported(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.opset_import[0].domain = "acme"

    refused(save(conv_model(), tmp_path / "m.onnx", change), "PC010")


def test_an_unknown_operator(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[0].op_type, model.graph.node[0].name = "Convolve", "layer7"

    assert refused(save(conv_model(), tmp_path / "m.onnx", change), "PC011").diagnostic.where == "layer7"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite(tmp_path: Path, bad: float) -> None:
    weight = np.zeros((4, 3, 3, 3), np.float32)
    weight[1, 2, 0, 1] = bad
    path = save(conv_model(weight), tmp_path / "m.onnx")
    assert refused(path, "PC012").diagnostic.where == "w"
    assert refused(save_external(path, conv_model(weight)), "PC012").diagnostic.where == "w"


def test_nan_in_a_constant_node(tmp_path: Path) -> None:
    model = text_model("g (float[2] x) => (float[2] y) { c = Constant <value = float[2] {1, 1}> () y = Add (x, c) }")
    model.graph.node[0].attribute[0].t.CopyFrom(numpy_helper.from_array(np.array([1, np.nan], np.float32)))
    assert refused(save(model, tmp_path / "m.onnx"), "PC012").diagnostic.where == "c"


def test_minus_infinity_in_a_mask_is_fine(tmp_path: Path) -> None:
    model = text_model("g (float[2] x) => (float[2] y) { y = Add (x, mask) }")
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, -np.inf], np.float32), "mask"))
    assert load(save(model, tmp_path / "m.onnx")).warnings == []


def test_an_input_of_size_zero(tmp_path: Path) -> None:
    model = text_model("g (float[0,3] x) => (float[0,3] y) { y = Relu (x) }")
    assert refused(save(model, tmp_path / "m.onnx"), "PC013").diagnostic.where == "x"


def test_a_sparse_initializer(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        values = helper.make_tensor("sw", TensorProto.FLOAT, [1], [1.0])
        indices = helper.make_tensor("swi", TensorProto.INT64, [1], [0])
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))

    assert refused(save(conv_model(), tmp_path / "m.onnx", change), "PC014").diagnostic.where == "sw"


@pytest.mark.parametrize(
    "text",
    [
        "g (float[1,4,2,2] x, float[4] a) => (float[1,4,2,2] y, float[4] m, float[4] v)"
        "{ y, m, v = BatchNormalization <training_mode = 1> (x, a, a, a, a) }",
        "g (float[4] x) => (float[4] y) <float r = {0.5}, bool t = {1}> { y = Dropout (x, r, t) }",
        '<ir_version: 8, opset_import: ["" : 17, "ai.onnx.preview.training" : 1]>'
        "g (float[4] x) => (float[4] y) { y = ai.onnx.preview.training.Adam (x) }",
    ],
)
def test_training_mode(tmp_path: Path, text: str) -> None:
    model = text_model(text)
    model.graph.node[0].name = "layer"
    assert refused(save(model, tmp_path / "m.onnx"), "PC015").diagnostic.where == "layer"


def test_a_weight_whose_data_does_not_fill_its_shape(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer[0].dims[0] = 400

    assert refused(save(conv_model(), tmp_path / "m.onnx", change), "PC018").diagnostic.where == "w"


def test_an_input_that_is_no_tensor(tmp_path: Path) -> None:
    model = text_model("g (seq(float[2]) x) => (float[2] y) <int64 i = {0}> { y = SequenceAt (x, i) }")
    assert refused(save(model, tmp_path / "m.onnx"), "PC021").diagnostic.where == "x"
