"""Checkpoints are read without torch, and a pickle that wants to do anything else is refused."""

import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from prunec.diagnostics import PrunecError
from prunec.models.torch_weights import LEGACY_MAGIC, load_torch_weights


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def integer(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def integers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(integer, values)) + b"t"


def tensor(elements: int, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    """The opcodes that torch writes for a float tensor in storage "0"."""
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + integer(elements) + b"tQ"
    arguments = b"(" + storage + integer(offset) + integers(shape) + integers(strides) + b"\x89}t"
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


def state(value: bytes) -> bytes:
    return b"\x80\x02}" + text("weight") + value + b"s."


def write_zip(path: Path, state_pickle: bytes, storage: np.ndarray) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", state_pickle)
        archive.writestr("net/data/0", storage.astype("<f4").tobytes())
    return path


def write_legacy(path: Path, state_pickle: bytes, storage: np.ndarray) -> Path:
    head = b"".join(pickle.dumps(part, 2) for part in (LEGACY_MAGIC, 1001, {"little_endian": True}))
    raw = struct.pack("<q", storage.size) + storage.astype("<f4").tobytes()
    path.write_bytes(head + state_pickle + pickle.dumps(["0"], 2) + raw)
    return path


@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_reads_views_with_offset_and_strides(tmp_path, write):
    storage = np.arange(8, dtype=np.float32)
    path = write(tmp_path / "net.pth", state(tensor(8, 2, (3, 2), (1, 3))), storage)
    weights = load_torch_weights(path)
    assert list(weights) == ["weight"]
    assert weights["weight"].dtype == np.float32
    np.testing.assert_array_equal(weights["weight"], [[2, 5], [3, 6], [4, 7]])


def test_reads_a_scalar(tmp_path):
    path = write_zip(tmp_path / "net.pth", state(tensor(1, 0, (), ())), np.array([7.0]))
    assert load_torch_weights(path)["weight"] == 7


@pytest.mark.parametrize(
    "call",
    [
        b"cos\nsystem\n" + b"(" + text("echo owned > owned") + b"tR",
        b"cbuiltins\neval\n" + b"(" + text("1") + b"tR",
        b"ctorch.storage\n_load_from_bytes\n" + b"(" + text("1") + b"tR",
        b"cbuiltins\ngetattr\n",
    ],
)
@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_a_pickle_that_calls_anything_else_is_refused(tmp_path, monkeypatch, write, call):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "evil.pth", state(call), np.zeros(1))
    with pytest.raises(PrunecError, match=r"PC706.*asks for") as caught:
        load_torch_weights(path)
    assert caught.value.diagnostic.where == str(path)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (9,), (1,)),
        (7, (2,), (1,)),
        (0, (2, 2), (1, 100)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (1 << 20, 1 << 20), (0, 0)),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(tmp_path, offset, shape, strides):
    path = write_zip(tmp_path / "net.pth", state(tensor(8, offset, shape, strides)), np.zeros(8))
    with pytest.raises(PrunecError, match="PC706"):
        load_torch_weights(path)


@pytest.mark.parametrize("content", [b"", b"hello", pickle.dumps([1, 2, 3]), b"PK\x05\x06" + bytes(18)])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    with pytest.raises(PrunecError, match="PC706"):
        load_torch_weights(path)


@pytest.mark.torch
@pytest.mark.parametrize("is_zip", [True, False])
def test_agrees_with_torch(tmp_path, is_zip):
    import torch

    expected = {"a": torch.randn(3, 4).T, "b": torch.arange(5), "c": torch.nn.Parameter(torch.randn(2)).detach()}
    torch.save(expected, tmp_path / "net.pth", _use_new_zipfile_serialization=is_zip)
    weights = load_torch_weights(tmp_path / "net.pth")
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(weights[name], value.numpy())
