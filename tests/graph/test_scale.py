"""Large graphs: near-linear time, and a model larger than what may be resident."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from benchmarks.scale import STEPS, cut_in_a_process, first_half, times
from benchmarks.scale_graphs import GRAPHS, write_large
from prunec.frontend.onnx import load
from prunec.graph import analyse
from prunec.graph.mapped import LAZY_BYTES, compressed, opened
from prunec.package.writer import save_model
from prunec.passes.canonicalise import canonicalise
from prunec.passes.slice_channels import slice_channels
from tests.graph.checks import assert_exact, prepare


@pytest.mark.parametrize("name", GRAPHS)
def test_small_ones_are_cut_exactly(name: str) -> None:
    """The builders write what they say: groups in every block, and the numbers agree."""
    canonical, analysis = prepare(GRAPHS[name][0](6))
    assert sum(g.pinned is None for g in analysis.groups) >= 6
    assert_exact(canonical, analysis, seed=0)


@pytest.mark.parametrize("name", GRAPHS)
def test_time_grows_with_the_graph(name: str) -> None:
    """Twice the graph takes about twice the time: CPU seconds, the better of two, generous for a busy machine.

    The unbroken DenseNet has four times the weights at twice the layers.
    """
    build, size = GRAPHS[name]
    small, large = size // 32, size // 16
    costs = {n: [times(build(n)) for _ in range(2)] for n in (small, large)}
    factor = 4 if name == "dense_unbroken" else 2
    for step in STEPS:
        before, after = (min(run[step] for run in costs[n]) for n in (small, large))
        assert after <= 2 * factor * before + 0.1, f"{step}: {before:.3f} s for n, {after:.3f} s for 2 n"


@pytest.mark.slow
@pytest.mark.parametrize("name", GRAPHS)
def test_ten_thousand_nodes(name: str) -> None:
    """Whole sizes: seconds, and no step grows faster than the graph."""
    build, size = GRAPHS[name]
    before, after = times(build(size // 2)), times(build(size))
    factor = 4 if name == "dense_unbroken" else 2
    for step in STEPS:
        assert after[step] <= 1.8 * factor * before[step] + 0.2, f"{step}: {before[step]:.2f} s, {after[step]:.2f} s"
    assert after["analyse"] < 20


def test_members_keep_their_own_positions_only() -> None:
    """An axis that a hundred groups share has each of its positions in one member: memory grows with the axes."""
    analysis = prepare(GRAPHS["dense_unbroken"][0](60))[1]
    places: dict[tuple[str, int, int], list[int]] = {}
    for group in analysis.groups:
        for member in group.members:
            places.setdefault((member.node, member.input_index, member.axis), []).extend(member.places.tolist())
            assert np.array_equal(np.flatnonzero(member.index >= 0), np.sort(member.places))
            assert np.array_equal(member.index[member.places], member.channels)
    assert max(len(own) for own in places.values()) > 60
    assert all(len(set(own)) == len(own) for own in places.values())


def test_slices_of_a_file_are_read_when_they_are_wanted(tmp_path: Path) -> None:
    write_large(tmp_path / "model.onnx", 0.004, width=64, hidden=8192)
    canonical = canonicalise(load(tmp_path / "model.onnx").model)
    analysis = analyse(canonical)
    alive = first_half(analysis)
    cut = slice_channels(canonical, analysis, alive)
    tensors = [v.const_value for v in cut.graph.initializers.values()]
    assert tensors and all(isinstance(tensor, ir.LazyTensor) for tensor in tensors)
    source = [v.const_value for v in canonical.graph.initializers.values()]
    whole = [tensor.numpy() for tensor in source if tensor is not None]
    kept = alive[next(g for g in analysis.groups if g.pinned is None).channels]
    assert np.array_equal(tensors[0].numpy(), whole[0][:, kept])  # type: ignore[union-attr]
    assert np.array_equal(tensors[1].numpy(), whole[1][kept])  # type: ignore[union-attr]
    save_model(cut, tmp_path / "cut.onnx", inline_limit_bytes=0)
    (tmp_path / "model.onnx.data").unlink()
    again = load(tmp_path / "cut.onnx").model
    saved = [v.const_value for v in again.graph.initializers.values()]
    assert np.array_equal(saved[0].numpy(), whole[0][:, kept])  # type: ignore[union-attr]


def test_small_tensors_are_copied(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    cut = compressed(ir.tensor(array), [(1, np.array([True, False, True, False]))], "w")
    assert isinstance(cut, ir.Tensor) and np.array_equal(cut.numpy(), array[:, ::2])
    data = np.arange(LAZY_BYTES // 2, dtype=np.float32)
    (tmp_path / "w.data").write_bytes(data.tobytes())
    stored = ir.ExternalTensor(
        "w.data", 0, data.nbytes, ir.DataType.FLOAT, shape=ir.Shape(data.shape), name="w", base_dir=tmp_path
    )
    assert isinstance(opened(stored), np.memmap) and np.array_equal(opened(stored), data)


@pytest.mark.slow
def test_two_gigabytes_are_cut_in_a_fraction_of_that(tmp_path: Path) -> None:
    """Two tensors of 64 MB at a time, and what the libraries take."""
    written = write_large(tmp_path / "large.onnx", 2.0)
    assert written > 1.8e9
    found = cut_in_a_process(tmp_path / "large.onnx", tmp_path / "cut.onnx")
    left = (tmp_path / "cut.onnx.data").stat().st_size
    assert 0.2 * written < left < 0.3 * written, "both axes of nearly every weight are halved"
    assert found["peak_mb"] < 600, f"{found['peak_mb']:.0f} MB resident"
