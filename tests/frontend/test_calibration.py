"""Calibration data: every source, the split, the batches, and each refusal with its place and hint."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from prunec.diagnostics import PrunecError
from prunec.frontend.calibration import Calibration, open_calibration
from tests.frontend.models import text_model

IMAGE = "g (float[{b},3,4,4] x) => (float[{b},3,4,4] y) {{ y = Relu (x) }}"
TEXT = "g (int64[b,s] ids, int64[b,s] mask) => (float[b,s,4] y) { e = Gather (t, ids) y = Identity (e) }"


def image_model(batch: str = "N") -> ir.Model:
    return ir.from_proto(text_model(IMAGE.format(b=batch)))


def token_model(rows: int = 20) -> ir.Model:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {TEXT}')
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros((rows, 4), np.float32), "t"))
    return ir.from_proto(proto)


def images(count: int, start: int = 0) -> np.ndarray:
    """Sample i is full of i."""
    return np.arange(start, start + count, dtype=np.float32)[:, None, None, None] * np.ones((1, 3, 4, 4), np.float32)


def seen(batches: Iterator[dict[str, np.ndarray]]) -> list[int]:
    return [int(value) for batch in batches for value in batch["x"][:, 0, 0, 0]]


def sizes(batches: Iterator[dict[str, np.ndarray]], name: str = "x") -> list[int]:
    return [len(batch[name]) for batch in batches]


def refused(code: str, spec: object, model: ir.Model, **arguments: int) -> PrunecError:
    with pytest.raises(PrunecError) as caught:
        open_calibration(None if spec is None else str(spec), model, **arguments)
    diagnostic = caught.value.diagnostic
    assert diagnostic.code == code, diagnostic
    assert diagnostic.hint
    return caught.value


def codes(calibration: Calibration) -> list[str]:
    return [warning.code for warning in calibration.warnings]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """`samples_for_test.py` in the working directory."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "samples_for_test.py"
    sys.modules.pop("samples_for_test", None)


# Sources ------------------------------------------------------------------------------------------------------------


def test_npz_is_split_and_batched(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", x=images(23))
    calibration = open_calibration(str(tmp_path / "c.npz"), image_model(), samples=20)
    assert calibration.source == "calibration"
    assert calibration.samples == 20
    assert seen(calibration.fit()) == list(range(16))
    assert seen(calibration.held_out()) == list(range(16, 20))
    assert sizes(calibration.fit()) == [8, 8]
    assert codes(calibration) == []


def test_every_pass_gives_the_same(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", x=images(10))
    calibration = open_calibration(str(tmp_path / "c.npz"), image_model())
    assert seen(calibration.fit()) == seen(calibration.fit())
    assert calibration.fingerprint == open_calibration(str(tmp_path / "c.npz"), image_model()).fingerprint


@pytest.mark.parametrize(("batch", "expected"), [("1", [1] * 8), ("2", [2] * 4), ("5", [5])])
def test_a_fixed_batch_size_is_kept(tmp_path: Path, batch: str, expected: list[int]) -> None:
    np.savez(tmp_path / "c.npz", x=images(10))
    calibration = open_calibration(str(tmp_path / "c.npz"), image_model(batch), samples=10)
    assert sizes(calibration.fit()) == expected
    assert set(sizes(calibration.held_out())) == {int(batch)}
    assert seen(calibration.fit()) + seen(calibration.held_out()) == list(range(10))


def test_samples_that_do_not_fill_a_batch_are_left_with_a_warning(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", x=images(11))
    calibration = open_calibration(str(tmp_path / "c.npz"), image_model("4"), samples=64)
    assert calibration.samples == 8
    assert codes(calibration) == ["PC320", "PC322"]


def test_an_array_of_batches_fits_a_fixed_batch(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", x=images(8).reshape(4, 2, 3, 4, 4))
    assert open_calibration(str(tmp_path / "c.npz"), image_model("2")).samples == 8


def test_a_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    for index in (10, 9, 2, 1, 0):
        np.save(tmp_path / f"s{index}.npy", images(1, index)[0])
    np.savez(tmp_path / "s3.npz", x=images(2, 3))
    (tmp_path / "notes.txt").write_text("ignored")
    calibration = open_calibration(str(tmp_path), image_model(), samples=7)
    assert seen(calibration.fit()) + seen(calibration.held_out()) == [0, 1, 2, 3, 4, 9, 10]


def test_a_folder_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prunec.frontend import sample_files

    for index in range(20):
        np.savez(tmp_path / f"{index}.npz", x=images(1, index))
    calibration = open_calibration(str(tmp_path), image_model("1"), samples=20)
    reads: list[Path] = []
    original = sample_files._read
    monkeypatch.setattr(sample_files, "_read", lambda file: reads.append(file) or original(file))
    next(calibration.fit())
    assert len(reads) == 1


def test_a_function_gets_samples_and_seed(module: Path) -> None:
    module.write_text(
        "import numpy as np\n"
        "def make(samples, *, seed):\n"
        "    for i in range(samples):\n"
        "        yield {'x': np.full((1, 3, 4, 4), i + 100 * seed, np.float32)}\n"
    )
    calibration = open_calibration("samples_for_test:make", image_model(), samples=5, seed=2)
    assert seen(calibration.fit()) == [200, 201, 202, 203]
    assert seen(calibration.held_out()) == [204]
    other = open_calibration("samples_for_test:make", image_model(), samples=5, seed=3)
    assert other.fingerprint != calibration.fingerprint


def test_a_function_may_return_plain_arrays_and_run_forever(module: Path) -> None:
    module.write_text(
        "import numpy as np\n"
        "def make():\n"
        "    buffer = np.zeros((3, 4, 4), np.float32)\n"
        "    while True:\n"
        "        yield buffer\n"
        "        buffer += 1\n"
    )
    calibration = open_calibration("samples_for_test:make", image_model(), samples=6)
    assert seen(calibration.fit()) + seen(calibration.held_out()) == list(range(6))


def test_sequences_of_different_lengths_are_batched_apart(module: Path) -> None:
    module.write_text(
        "import numpy as np\n"
        "def make():\n"
        "    for n in (5, 5, 7, 7, 7, 5, 9, 9, 9, 9):\n"
        "        yield {'ids': np.ones((1, n), np.int64), 'mask': np.ones((1, n), np.int64)}\n"
    )
    calibration = open_calibration("samples_for_test:make", token_model(), samples=10)
    assert [batch["ids"].shape for batch in calibration.fit()] == [(2, 5), (3, 7), (1, 5), (2, 9)]


def test_a_model_without_a_common_batch_axis_takes_whole_feeds(tmp_path: Path) -> None:
    model = ir.from_proto(
        text_model("g (float[1,6] x, float[2,1,3] state, int64 rate) => (float[1,6] y) { y = Relu (x) }")
    )
    np.savez(tmp_path / "c.npz", x=np.zeros((5, 1, 6), "f"), state=np.ones((5, 2, 1, 3), "f"), rate=np.int64(16000))
    calibration = open_calibration(str(tmp_path / "c.npz"), model)
    [*batches] = calibration.fit()
    assert len(batches) == 4
    assert {name: array.shape for name, array in batches[0].items()} == {"x": (1, 6), "state": (2, 1, 3), "rate": ()}


# Synthetic ----------------------------------------------------------------------------------------------------------


def test_synthetic_samples_depend_on_the_seed_only() -> None:
    first, again = (open_calibration(None, image_model(), samples=10, seed=1) for _ in range(2))
    other = open_calibration(None, image_model(), samples=10, seed=2)
    assert first.source == "synthetic"
    assert all(np.array_equal(a["x"], b["x"]) for a, b in zip(first.fit(), again.fit(), strict=True))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    batch = next(first.fit())["x"]
    assert batch.dtype == np.float32
    assert abs(float(batch.mean())) < 0.2
    assert 0.8 < float(batch.std()) < 1.2


def test_synthetic_tokens_stay_inside_the_vocabulary() -> None:
    calibration = open_calibration(None, token_model(rows=7), samples=16)
    for batch in calibration.fit():
        assert batch["ids"].dtype == np.int64
        assert batch["ids"].shape == (8, 32) or batch["ids"].shape == (5, 32)
        assert 0 <= batch["ids"].min() <= batch["ids"].max() < 7
        assert (batch["mask"] == 1).all()


def test_one_synthetic_sample_is_enough() -> None:
    calibration = open_calibration(None, image_model("3"), samples=1)
    assert sizes(calibration.fit()) == sizes(calibration.held_out()) == [3]


def test_synthetic_samples_need_known_axes() -> None:
    model = ir.from_proto(text_model("g (float[N,3,h,w] x) => (float[N,3,h,w] y) { y = Relu (x) }"))
    error = refused("PC312", None, model)
    assert error.diagnostic.where == "x"
    assert "--input-shape" in str(error.diagnostic.hint)


def test_a_model_without_inputs() -> None:
    refused("PC315", None, ir.from_proto(text_model("g () => (float[2] y) { y = RandomNormal <shape = [2]> () }")))


# Refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["missing.npz", "nowhere", "a/b:c"])
def test_a_source_that_does_not_exist(spec: str) -> None:
    assert refused("PC301", spec, image_model()).diagnostic.where == spec


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("1,2,3")
    refused("PC301", tmp_path / "c.csv", image_model())


@pytest.mark.parametrize("kind", ["text", "truncated", "objects", "empty"])
def test_a_file_that_cannot_be_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "c.npz"
    np.savez(path, x=images(4) if kind != "objects" else np.array([{}], dtype=object))
    if kind == "text":
        path.write_text("not numpy")
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    elif kind == "empty":
        path.write_bytes(b"")
    assert refused("PC302", path, image_model()).diagnostic.where == str(path)


def test_damaged_files_are_refused_or_read(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    np.savez_compressed(path, x=images(4))
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(60):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            open_calibration(str(path), image_model())
            outcomes.add("read")
        except PrunecError as error:
            outcomes.add(error.diagnostic.code)
    assert "PC302" in outcomes


def test_names_that_do_not_match(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", images=images(4))
    error = refused("PC303", tmp_path / "c.npz", image_model())
    assert "missing: x" in str(error)
    assert "unknown: images" in str(error)
    assert "x" in str(error.diagnostic.hint)


@pytest.mark.parametrize("shape", [(4, 1, 4, 4), (4, 3, 4, 5), (6,), (4, 2, 2, 3, 4, 4), (4, 3, 0, 4)])
def test_shapes_that_do_not_fit(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.savez(tmp_path / "c.npz", x=np.zeros(shape, np.float32))
    refused("PC304", tmp_path / "c.npz", image_model())


def test_types_that_do_not_fit(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", ids=np.zeros((4, 3)), mask=np.zeros((4, 3), np.int64))
    assert '"ids"' in str(refused("PC305", tmp_path / "c.npz", token_model()))
    np.savez(tmp_path / "c.npz", x=np.array([["a"]]))
    refused("PC304", tmp_path / "c.npz", image_model())


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.uint8])
def test_types_that_fit_are_cast_with_a_warning(tmp_path: Path, dtype: type) -> None:
    np.savez(tmp_path / "c.npz", x=images(4).astype(dtype))
    calibration = open_calibration(str(tmp_path / "c.npz"), image_model(), samples=4)
    [warning] = calibration.warnings
    assert (warning.code, warning.where) == ("PC321", "x")
    assert next(calibration.fit())["x"].dtype == np.float32


def test_small_integers_are_cast_with_a_warning(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", ids=np.zeros((4, 3), np.int32), mask=np.ones((4, 3), np.int64))
    calibration = open_calibration(str(tmp_path / "c.npz"), token_model(), samples=4)
    assert [(w.code, w.where) for w in calibration.warnings] == [("PC321", "ids")]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite(tmp_path: Path, bad: float) -> None:
    data = images(4)
    data[2, 1, 3, 0] = bad
    np.savez(tmp_path / "c.npz", x=data)
    assert refused("PC306", tmp_path / "c.npz", image_model()).diagnostic.where == str(tmp_path / "c.npz")


def test_no_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", x=images(0))
    refused("PC307", tmp_path / "c.npz", image_model())
    (tmp_path / "empty").mkdir()
    refused("PC307", tmp_path / "empty", image_model())


def test_too_few_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", x=images(1))
    refused("PC308", tmp_path / "c.npz", image_model())
    np.savez(tmp_path / "c.npz", x=images(7))
    assert "8" in str(refused("PC308", tmp_path / "c.npz", image_model("4")).diagnostic.hint)


def test_fewer_samples_than_asked_is_a_warning(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", x=images(5))
    calibration = open_calibration(str(tmp_path / "c.npz"), image_model(), samples=64)
    assert codes(calibration) == ["PC320"]
    assert calibration.samples == 5


@pytest.mark.parametrize("spec", ["no_such_module:f", "json:no_such_function", "json:__name__"])
def test_a_function_that_cannot_be_imported(spec: str) -> None:
    assert refused("PC309", spec, image_model()).diagnostic.where == spec


def test_a_module_with_an_error(module: Path) -> None:
    module.write_text("1 / 0\n")
    assert "ZeroDivisionError" in str(refused("PC309", "samples_for_test:make", image_model()))


@pytest.mark.parametrize("body", ["raise KeyError('photos')", "yield 1 / 0"])
def test_a_function_that_raises(module: Path, body: str) -> None:
    module.write_text(f"def make():\n    {body}\n")
    error = refused("PC310", "samples_for_test:make", image_model())
    assert "photos" in str(error) or "division by zero" in str(error)
    assert error.diagnostic.where == "samples_for_test:make"


@pytest.mark.parametrize("body", ["return 5", "return [5]", "return [[1.0, 2.0]]", "return None"])
def test_a_function_that_returns_no_samples(module: Path, body: str) -> None:
    module.write_text(f"def make():\n    {body}\n")
    refused("PC311", "samples_for_test:make", image_model())


def test_inputs_with_different_numbers_of_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", ids=np.zeros((4, 3), np.int64), mask=np.ones((5, 3), np.int64))
    assert "ids has 4" in str(refused("PC313", tmp_path / "c.npz", token_model()))


def test_tokens_outside_the_vocabulary(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", ids=np.full((4, 3), 20), mask=np.ones((4, 3), np.int64))
    assert "20 rows" in str(refused("PC314", tmp_path / "c.npz", token_model()))
