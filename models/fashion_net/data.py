"""Fashion-MNIST: 60 000 training and 10 000 test images of 28×28 bytes, ten classes (Xiao et al., 2017; MIT)."""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunec.models.fetch import fetch
from prunec.models.packages import FASHION_MNIST

MEAN, DEVIATION = 0.2860, 0.3530  # of the training pixels / 255
TRAINING, TEST = "train", "t10k"


@dataclass(frozen=True)
class Images:
    inputs: npt.NDArray[np.float32]  # [n, 1, 28, 28], normalised
    labels: npt.NDArray[np.int64]  # [n]


@cache
def load(split: str) -> Images:
    """TRAINING or TEST, from the Debian package `dataset-fashion-mnist`."""
    folder = fetch(FASHION_MNIST) / "usr/share/datasets/fashion-mnist"
    return read_split(folder, split)


def read_split(folder: Path, split: str) -> Images:
    pixels = read_idx(folder / f"{split}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{split}-labels-idx1-ubyte.gz")
    return Images(normalise(pixels)[:, None], labels.astype(np.int64))


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """A gzipped `idx` file of unsigned bytes: 0, 0, type 8, rank, big-endian sizes, data."""
    raw = gzip.decompress(path.read_bytes())
    zero, kind, rank = struct.unpack(">HBB", raw[:4])
    if (zero, kind) != (0, 8):
        raise ValueError(f"{path.name} is not an idx file of bytes")
    shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def normalise(images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return ((images.astype(np.float32) / 255 - MEAN) / DEVIATION).astype(np.float32)
