"""2:4 weights as sparse tensor cores store them: the two kept values of every run of four, and where they were.

    dense row   0 a 0 b | c 0 0 d | …        values   a b c d …        metadata   1 3 | 0 3 | …   2 bits each

Metadata is packed little end first, four runs (eight positions) to a 16-bit word, as `mma.sp` reads it for 16-bit
types; the order in which words are dealt to threads is the kernel's own and is left out. A run with fewer than two
values keeps a zero at its first free positions, in ascending order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunec.backends.tensorrt.checker import GROUP, KEPT

RUNS_PER_WORD = 4


@dataclass(frozen=True)
class Compressed:
    """`values` [rows, columns/2] in the weight's type; `metadata` uint16 [rows, ceil(columns/16)]; `columns` dense."""

    values: np.ndarray
    metadata: np.ndarray
    columns: int

    @property
    def nbytes(self) -> int:
        return int(self.values.nbytes + self.metadata.nbytes)


def compress(weight: np.ndarray) -> Compressed:
    """`weight` [rows, columns], columns a multiple of 4 along the reduction axis.

    Raises:
        ValueError: a run of four has more than two values.
    """
    rows, columns = weight.shape
    runs = weight.reshape(rows, columns // GROUP, GROUP)
    kept = runs != 0
    if (kept.sum(axis=-1) > KEPT).any():
        raise ValueError("a run of four has more than two values")
    # Values first, then free positions; both in ascending order: the two smallest keys are what is kept.
    keys = np.where(kept, np.arange(GROUP), np.arange(GROUP) + GROUP)
    places = np.sort(np.sort(keys, axis=-1)[..., :KEPT] % GROUP, axis=-1)
    values = np.take_along_axis(runs, places, axis=-1).reshape(rows, -1)
    return Compressed(values, _pack(places), columns)


def decompress(stored: Compressed) -> np.ndarray:
    """[rows, columns] in the type of the values."""
    rows = len(stored.values)
    places = _unpack(stored.metadata, stored.columns // GROUP)
    runs = np.zeros((rows, stored.columns // GROUP, GROUP), stored.values.dtype)
    np.put_along_axis(runs, places, stored.values.reshape(rows, -1, KEPT), axis=-1)
    return runs.reshape(rows, stored.columns)


def product(stored: Compressed, data: np.ndarray) -> np.ndarray:
    """W · data as the hardware does it: kept values times the activations that metadata selects, summed in float32.

    `data` [columns, n] in the type of the values → float32 [rows, n].
    """
    places = _unpack(stored.metadata, stored.columns // GROUP)
    base = np.arange(stored.columns // GROUP)[None, :, None] * GROUP
    chosen = (places + base).reshape(len(places), -1)
    left = stored.values.astype(np.float32)
    found = np.empty((len(left), data.shape[1]), np.float32)
    for row, (weights, columns) in enumerate(zip(left, chosen, strict=True)):
        found[row] = weights @ data[columns].astype(np.float32)
    return found


def _pack(places: np.ndarray) -> np.ndarray:
    """places [rows, runs, 2] in 0..3 → uint16 [rows, ceil(runs/4)]."""
    rows, runs, _ = places.shape
    nibbles = (places[..., 0] | places[..., 1] << 2).astype(np.uint16)
    padded = np.zeros((rows, -(-runs // RUNS_PER_WORD) * RUNS_PER_WORD), np.uint16)
    padded[:, :runs] = nibbles
    words = padded.reshape(rows, -1, RUNS_PER_WORD) << (4 * np.arange(RUNS_PER_WORD, dtype=np.uint16))
    packed: np.ndarray = np.bitwise_or.reduce(words, axis=-1).astype(np.uint16)
    return packed


def _unpack(metadata: np.ndarray, runs: int) -> np.ndarray:
    """The inverse of `_pack`: int64 [rows, runs, 2]."""
    shifts = 4 * np.arange(RUNS_PER_WORD, dtype=np.uint16)
    nibbles = (metadata[..., None] >> shifts & 0xF).reshape(len(metadata), -1)[:, :runs]
    return np.stack([nibbles & 3, nibbles >> 2], axis=-1).astype(np.int64)
