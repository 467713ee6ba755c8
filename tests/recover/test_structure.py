"""What may be trained, where a network can be taken apart, and how samples are changed. No torch is needed for it."""

from __future__ import annotations

import numpy as np
import pytest

from prunec.diagnostics import PrunecError
from prunec.passes.canonicalise import canonicalise
from prunec.recover.augment import augmented, can_augment
from prunec.recover.borders import blocks, borders
from prunec.recover.data import Pool, batch_size
from prunec.recover.parameters import refuse_quantised, trainable
from tests.graph.builder import Builder
from tests.recover.nets import Data, model, residual


def attention(b: Builder) -> str:
    """Two layers behind a table, both with the same mask, which is made of the inputs alone."""
    x = b.input("x", [2, 6], 7)
    mask = b.op("Mul", [b.op("Cast", [x], to=1), b.const(np.array(-0.1, np.float32), "slope")])
    mask = b.op("Unsqueeze", [mask, b.const(np.array([1]))])
    y = b.op("Gather", [b.const(b.rng.standard_normal((20, 16)).astype(np.float32), "table"), x])
    for layer in range(2):
        q, k, v = (b.op("MatMul", [y, b.weight(16, 16, name=f"{part}{layer}")]) for part in "qkv")
        scores = b.op("Add", [b.op("MatMul", [q, b.op("Transpose", [k], perm=[0, 2, 1])]), mask])
        y = b.op("Add", [b.op("MatMul", [b.op("Softmax", [scores], axis=-1), v]), y])
        names = [b.const(np.ones(16, np.float32), f"{part}{layer}") for part in ("scale", "offset")]
        y = b.op("LayerNormalization", [y, *names], axis=-1)
    return y


def test_weights_and_shifts_are_told_apart() -> None:
    found = trainable(model(attention))
    assert found.weights == ("q0", "k0", "v0", "q1", "k1", "v1")
    assert found.shifts == ("scale0", "offset0", "scale1", "offset1")


def test_a_table_that_is_also_a_head_stays() -> None:
    b = Builder(0)
    table = b.const(b.rng.standard_normal((16, 16)).astype(np.float32), "tied")
    y = b.op("Gather", [table, b.input("x", [2, 6], 7)])
    b.output(b.op("MatMul", [b.op("MatMul", [y, b.weight(16, 16, name="own")]), table]))
    assert trainable(canonicalise(b.model())).weights == ("own",)


def test_vectors_behind_weights_are_shifts_and_those_before_them_are_not() -> None:
    b = Builder(0)
    x = b.op("Mul", [b.input("x", [2, 3, 8, 8]), b.const(np.full((1, 3, 1, 1), 2, np.float32), "normalise")])
    y = b.op("Conv", [x, b.weight(4, 3, 3, 3, name="w")])
    y = b.op("Add", [b.relu(y), b.const(np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1), "bias")])
    b.output(b.op("Add", [y, b.const(np.arange(36, dtype=np.float32).reshape(1, 1, 6, 6), "map")]))
    found = trainable(canonicalise(b.model()))
    assert found.weights == ("w",) and found.shifts == ("bias",)


def test_quantised_models_are_refused() -> None:
    b = Builder(0)
    scale, zero = b.const(np.array(0.1, np.float32)), b.const(np.array(0, np.int8))
    b.output(b.op("DequantizeLinear", [b.op("QuantizeLinear", [b.input("x", [1, 4]), scale, zero]), scale, zero]))
    with pytest.raises(PrunecError, match="PC340") as caught:
        refuse_quantised(b.model())
    assert caught.value.diagnostic.where and caught.value.diagnostic.hint


def test_residual_blocks_lie_between_borders() -> None:
    found = model(residual)
    adds = [node.outputs[0].name for node in found.graph if node.op_type == "Add"]
    names = borders(found)
    assert set(adds) <= set(names)
    inside = [node.outputs[0].name for node in found.graph if node.op_type == "Conv"][1::2]
    assert not set(inside) & set(names)  # the shortcut goes past them
    made = blocks(found, trainable(found), names)
    assert [block.start for block in made] == [None, *(block.targets[-1] for block in made[:-1])]
    assert made[-1].targets == (found.graph.outputs[0].name,)
    trained = [name for block in made for name in block.trained]
    assert sorted(trained) == sorted(trainable(found).names) and len(set(trained)) == len(trained)


def test_a_mask_may_cross_a_border() -> None:
    found = model(attention)
    norms = [node.outputs[0].name for node in found.graph if node.op_type == "LayerNormalization"]
    assert norms[0] in borders(found)
    made = blocks(found, trainable(found), borders(found))
    assert [block.targets for block in made] == [(norms[0],), (norms[1],)]


def test_without_borders_the_model_is_one_block() -> None:
    found = model(residual)
    made = blocks(found, trainable(found), ())
    assert [block.start for block in made] == [None] and made[0].targets == (found.graph.outputs[0].name,)


@pytest.mark.parametrize("shape", [(6, 3, 16, 24), (6, 16, 24, 3), (6, 50), (6, 20, 8)])
def test_changed_samples_have_the_shape_the_type_and_the_range(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).uniform(-1, 2, shape).astype(np.float32)
    for axis in range(1, x.ndim):
        x = x.take(np.arange(x.shape[axis]) // 8 * 8, axis)  # areas of one value, which a shift does not tear apart
    one, two, other = (augmented({"x": x}, np.random.default_rng(seed))["x"] for seed in (1, 1, 2))
    assert one.shape == x.shape and one.dtype == x.dtype and one.min() >= x.min() and one.max() <= x.max()
    assert np.array_equal(one, two) and not np.array_equal(one, other) and not np.array_equal(one, x)
    like = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(one, x, strict=True)]
    assert max(like) > 0.5


def test_texts_go_on_as_another_and_masks_alike() -> None:
    ids = np.array([[1, 11, 12, 13, 2, 0, 0, 0], [1, 21, 22, 23, 24, 25, 2, 0], [1, 31, 32, 33, 34, 35, 36, 2]])
    feeds = {"ids": ids, "mask": (ids != 0).astype(np.int64)}
    assert can_augment(feeds)
    seen = set[tuple[int, ...]]()
    for seed in range(40):
        found = augmented(feeds, np.random.default_rng(seed))
        for text, mask in zip(found["ids"], found["mask"], strict=True):
            assert np.array_equal(mask, text != 0) and np.all(np.diff(mask) <= 0)  # no gap in what is looked at
            assert text[0] == 1 and np.all(text[1:][text[1:] > 2] % 10 == np.arange(1, 8)[text[1:] > 2])
            seen.add(tuple(text.tolist()))
    assert len(seen) > 10 and not {tuple(text) for text in ids.tolist()} >= seen


def test_inputs_of_several_kinds_stay_as_they_are() -> None:
    assert not can_augment({"ids": np.zeros((2, 5), np.int64), "x": np.zeros((2, 5), np.float32)})
    assert not can_augment({"ids": np.zeros((2, 5), np.int64), "kind": np.zeros((2, 1), np.int64)})
    assert can_augment({"x": np.zeros((2, 5), np.float32)})


def test_samples_are_dealt_to_training_and_watching() -> None:
    found = model(residual)
    pool = Pool(found, Data((3, 8, 8)))
    assert pool.samples == 40 and pool.size == batch_size(found) == 32
    parts = (pool.training, pool.watched, pool.judged)
    items = [sorted(item for batch in part for item in batch) for part in parts]
    assert items == [list(range(40)), list(range(40, 56, 2)), list(range(41, 56, 2))]  # two batches of 8 are held out
    stream = pool.epochs(0)
    epoch = [next(stream)[0] for _ in pool.training]
    assert sorted(item for batch in epoch for item in batch) == items[0]
    assert [warning.code for warning in pool.warnings(1000)] == ["PC341"] and "40 samples" in str(pool.warnings(1000))
    pool.close()
    assert not Pool(found, Data((3, 8, 8), fit=8)).warnings(1000)
