"""Entries on disk: there whole or not at all, bounded, and never trusted without their hash."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from prunec.cache import Cache, default_cache

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "text": np.array("é"), "none": np.zeros((0, 4))}


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.entry"))


def test_what_is_written_is_read_in_another_process_too(tmp_path: Path) -> None:
    digest = Cache(tmp_path).write("k", ARRAYS)
    found = Cache(tmp_path).read("k")
    assert found is not None and found[1] == digest
    for name, array in ARRAYS.items():
        assert found[0][name].dtype == array.dtype and np.array_equal(found[0][name], array)
    assert Cache(tmp_path).read("another") is None


@pytest.mark.parametrize("damage", ["one bit", "half", "empty", "only a hash"])
def test_a_damaged_entry_is_no_entry_and_that_is_said(tmp_path: Path, damage: str) -> None:
    cache = Cache(tmp_path)
    cache.write("k", ARRAYS)
    (path,) = entries(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes({"one bit": data, "half": data[:60], "empty": b"", "only a hash": data[-32:]}[damage])
    assert cache.read("k") is None
    assert [warning.code for warning in cache.warnings] == ["PC616"]
    assert entries(tmp_path) == []
    assert cache.write("k", ARRAYS) is not None and cache.read("k") is not None


def test_the_oldest_entries_make_room_but_never_those_of_this_run(tmp_path: Path) -> None:
    one = {"a": np.zeros(1000, np.uint8)}
    old = Cache(tmp_path)
    for number, key in enumerate("abc"):
        old.write(key, one)
        (path,) = set(entries(tmp_path)) - {old._path(other) for other in "abc"[:number]}
        os.utime(path, (number, number))
    cache = Cache(tmp_path, limit=4 * 1300)
    assert cache.read("a") is not None  # used now
    assert cache.write("d", one) and cache.write("e", one)
    assert [cache.read(key) is not None for key in "abcde"] == [True, False, True, True, True]
    assert cache.write("f", one) is None or cache.read("c") is not None
    full = Cache(tmp_path, limit=2000)
    assert full.write("g", {"a": np.zeros(3000, np.uint8)}) is None
    assert full.write("h", one) and full.write("i", one) is None  # its own entry stays
    assert full.read("h") is not None and full.warnings == []


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file" / "solved")
    assert cache.write("k", ARRAYS) is None and cache.write("l", ARRAYS) is None and cache.read("k") is None
    assert [warning.code for warning in cache.warnings] == ["PC617"]


def test_what_a_killed_process_left_behind_is_removed(tmp_path: Path) -> None:
    left, fresh = tmp_path / ".x.tmp", tmp_path / ".y.tmp"
    left.write_bytes(b"half")
    fresh.write_bytes(b"half")
    os.utime(left, (0, 0))
    Cache(tmp_path).write("k", ARRAYS)
    assert not left.exists() and fresh.exists()


def test_the_environment_names_the_folder_and_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNEC_CACHE", str(tmp_path))
    monkeypatch.setenv("PRUNEC_CACHE_MB", "7")
    cache = default_cache()
    assert cache is not None and cache.folder == tmp_path / "solved" and cache.limit == 7_000_000
    monkeypatch.setenv("PRUNEC_CACHE_MB", "0")
    assert default_cache() is None
