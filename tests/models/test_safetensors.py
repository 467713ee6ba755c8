import json
import struct

import numpy as np
import pytest

from prunec.diagnostics import PrunecError
from prunec.models.safetensors import load_safetensors


def write(path, header, data=b""):
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def test_reads_tensors_by_name(tmp_path):
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([7, 8], np.int64)
    header = {
        "__metadata__": {"format": "pt"},
        "b": {"dtype": "I64", "shape": [2], "data_offsets": [24, 40]},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    }
    weights = load_safetensors(write(tmp_path / "w.safetensors", header, a.tobytes() + b.tobytes()))
    assert list(weights) == ["a", "b"]
    np.testing.assert_array_equal(weights["a"], a)
    np.testing.assert_array_equal(weights["b"], b)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 20]},
        {"dtype": "F32", "shape": [3, 3], "data_offsets": [0, 24]},
        {"dtype": "X32", "shape": [6], "data_offsets": [0, 24]},
        {"dtype": "F32", "shape": [6]},
        "nothing",
    ],
)
def test_a_header_that_contradicts_itself_is_refused(tmp_path, entry):
    with pytest.raises(PrunecError, match="PC706"):
        load_safetensors(write(tmp_path / "w.safetensors", {"a": entry}, bytes(24)))


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, struct.pack("<Q", 4) + b"{{{{"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(PrunecError, match="PC706"):
        load_safetensors(tmp_path / "w.safetensors")
