"""2:4 counted for all positions at once equals 2:4 counted one by one."""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np
import pytest

from prunec.backends.tensorrt.checker import count, digest


def sparse(shape: tuple[int, ...], axis: int, seed: int = 0) -> np.ndarray:
    """Two values in every run of four along `axis`."""
    rng = np.random.default_rng(seed)
    array = np.moveaxis(rng.standard_normal(shape).astype(np.float32), axis, -1)
    runs = array.reshape(-1, 4)
    drop = np.argsort(rng.random(runs.shape), axis=1)[:, :2]
    np.put_along_axis(runs, drop, 0.0, axis=1)
    return np.ascontiguousarray(np.moveaxis(runs.reshape(array.shape), -1, axis))


def one_by_one(array: np.ndarray, axis: int) -> int:
    others = [range(n) for i, n in enumerate(array.shape) if i != axis]
    found = 0
    for where in itertools.product(*others):
        line = array[(*where[:axis], slice(None), *where[axis:])]
        found += sum(np.count_nonzero(line[i : i + 4]) <= 2 for i in range(0, len(line), 4))
    return found


@pytest.mark.parametrize(("shape", "axis"), [((5, 8, 3, 2), 1), ((8, 6), 0), ((6, 8), 1), ((2, 12, 5), 1), ((4,), 0)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int8])
def test_counts_equal_those_of_a_loop(shape: tuple[int, ...], axis: int, dtype: type) -> None:
    rng = np.random.default_rng(1)
    array = (rng.integers(-9, 9, shape) * (rng.random(shape) > 0.45)).astype(dtype) + dtype(0)
    found = count(array, axis)
    assert (found.units, found.valid) == (array.size // 4, one_by_one(array, axis))
    assert found.zeros == pytest.approx(float((array == 0).mean()))


def test_the_axis_decides() -> None:
    weight = sparse((8, 16, 3, 3), axis=1)
    assert count(weight, 1).is_sparse
    flattened = sparse((8, 16 * 9), axis=1).reshape(8, 16, 3, 3)  # runs over C·kh·kw, as other tools make them
    assert not count(flattened, 1).is_sparse


def test_a_single_bad_run_and_a_negative_zero_are_seen() -> None:
    weight = sparse((4, 8), axis=1)
    weight[2, 4:8] = [1, 2, 3, 0]
    assert (count(weight, 1).units, count(weight, 1).valid) == (8, 7)
    weight[2, 4:8] = [1, -0.0, 3, 0]
    assert count(weight, 1).negative == 1 and not count(weight, 1).is_sparse


def test_zeros_of_a_quantised_weight_are_its_zero_point() -> None:
    weight = np.array([[7, 3, 7, 5]], np.int8)
    assert count(weight, 1, zero=7).is_sparse and not count(weight, 1).is_sparse


def test_a_hash_is_of_the_values_in_order() -> None:
    array = np.arange(6, dtype=np.float16).reshape(2, 3)
    assert digest(array) == digest(np.asfortranarray(array)) != digest(array.T)
