"""Weights that are read from a file when they are asked for: the same numbers, and no memory in between."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunec.array_store import ArrayStore, in_file
from prunec.diagnostics import PrunecError
from prunec.frontend.onnx import load
from prunec.graph.mapped import LAZY_BYTES
from prunec.graph.stored import StoredTensors, store_weights

SIDE = 256  # float32 [SIDE, SIDE] is four times LAZY_BYTES


def chain(weights: list[np.ndarray]) -> onnx.ModelProto:
    """x @ w0 @ w1 …, constants in the order of their names."""
    names = [f"h{i}" for i in range(len(weights) + 1)]
    graph = helper.make_graph(
        [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]], name=f"m{i}") for i in range(len(weights))],
        "chain",
        [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, [1, SIDE])],
        [helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, [1, SIDE])],
        [numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(weights)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def random_weights(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((SIDE, SIDE), np.float32) for _ in range(count)]


def save(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "chain.onnx"
    onnx.save(model, path)
    return path


def tensors(model: ir.Model) -> list[ir.TensorProtocol]:
    found = [model.graph.initializers[f"w{i}"].const_value for i in range(len(model.graph.initializers))]
    return [tensor for tensor in found if tensor is not None]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_large_weights_stay_in_the_models_file(order: list[int], tmp_path: Path) -> None:
    weights = random_weights(3)
    weights[2] = weights[0].copy()  # the same bytes twice: any of the places is right
    proto = chain(weights)
    constants = [proto.graph.initializer[i] for i in order]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(constants)
    found = tensors(load(save(proto, tmp_path)).model)
    assert all(isinstance(tensor, ir.LazyTensor) for tensor in found)
    for tensor, weight in zip(found, weights, strict=True):
        np.testing.assert_array_equal(tensor.numpy(), weight)


def test_small_weights_and_those_without_plain_bytes_are_held(tmp_path: Path) -> None:
    proto = chain([*random_weights(1), np.eye(SIDE, 8, dtype=np.float32)])
    typed = proto.graph.initializer[0]
    numbers = numpy_helper.to_array(typed)
    typed.ClearField("raw_data")
    typed.float_data.extend(numbers.ravel().tolist())
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 8
    found = tensors(load(save(proto, tmp_path)).model)
    assert not any(isinstance(tensor, ir.LazyTensor) for tensor in found)
    np.testing.assert_array_equal(found[0].numpy(), numbers)


def test_a_file_that_changes_is_refused(tmp_path: Path) -> None:
    path = save(chain(random_weights(1)), tmp_path)
    (tensor,) = tensors(load(path).model)
    with path.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(PrunecError, match="PC022") as error:
        tensor.numpy()
    assert error.value.diagnostic.where == str(path)


def test_stored_weights_are_the_same_and_shared_ones_are_stored_once() -> None:
    model = ir.from_proto(chain(random_weights(3)))
    values = [model.graph.initializers[f"w{i}"] for i in range(3)]
    arrays = random_weights(3)
    for value, array in zip(values, arrays, strict=True):
        value.const_value = ir.Tensor(array, name=value.name)
    values[1].const_value = values[0].const_value
    store_weights(model)
    found = tensors(model)
    assert found[0] is found[1] and all(isinstance(tensor, ir.LazyTensor) for tensor in found)
    np.testing.assert_array_equal(found[1].numpy(), arrays[0])
    np.testing.assert_array_equal(found[2].numpy(), arrays[2])


def test_a_stored_tensor_takes_no_memory_between_two_uses() -> None:
    stored = StoredTensors()
    tracemalloc.start()
    tensor = stored.put(ir.Tensor(np.arange(16 * LAZY_BYTES // 8)))
    for _ in range(2):
        assert int(tensor.numpy()[-1]) == 16 * LAZY_BYTES // 8 - 1
        held, _ = tracemalloc.get_traced_memory()
        assert held < LAZY_BYTES
    tracemalloc.stop()


def test_arrays_in_files_are_equal_and_read_only() -> None:
    array = np.arange(5000.0).reshape(50, 100).T
    found = in_file(array)
    np.testing.assert_array_equal(found, array)
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0] = 1
    small = np.ones(3)
    assert in_file(small) is small


def test_the_file_of_a_store_is_written_to_again_where_something_went() -> None:
    rng = np.random.default_rng(0)
    held: dict[int, np.ndarray] = {}
    with ArrayStore[int](ram_bytes=0) as store:
        for key in range(400):
            held[key] = rng.integers(0, 255, int(rng.integers(5000, 20_000)), np.uint8).reshape(-1, 1)
            store.put(key, held[key])
            if len(held) > 20:
                gone = int(rng.choice(list(held)))
                del held[gone]
                store.drop(gone)
            for there in rng.choice(list(held), 3):
                np.testing.assert_array_equal(store.get(int(there)), held[int(there)])
        assert set(store) == set(held)
        assert store._file._end < 3 * 20 * 20_000  # of 5 MB that were written in all


def test_the_store_knows_shapes_wherever_the_arrays_are() -> None:
    with ArrayStore[int](ram_bytes=100_000) as store:
        for key in range(3):
            store.put(key, np.zeros((100, 200 + key), np.float32))
        assert [store.shape(key) for key in range(3)] == [(100, 200), (100, 201), (100, 202)]


def test_a_mapped_store_hands_out_its_file_itself() -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((shape, 257)).astype(kind) for shape, kind in ((3, "f4"), (400, "f4"), (300, "f8"))]
    with ArrayStore[int](ram_bytes=0, is_mapped=True) as store:
        for key, array in enumerate(arrays):
            store.put(key, array)
        found = [store.get(key) for key in range(3)]
        assert [array.flags.writeable for array in found] == [True, False, False]  # small ones are read
        store.drop(1)
        store.put(3, arrays[2][:200])
        for key, array in ((0, arrays[0]), (2, arrays[2]), (3, arrays[2][:200])):
            np.testing.assert_array_equal(store.get(key), array)
    np.testing.assert_array_equal(found[2], arrays[2])  # a map outlives the store
