"""fashion-net: a small ResNet trained here on Fashion-MNIST; the zoo's network with a real test accuracy.

Input `image` [b, 1, 28, 28], (x/255 − .2860)/.3530; output `logits` [b, 10]. `train.py` made `fashion_net.onnx`, which
ships with prunec; the images are fetched. Calibration takes training images, the metric all 10 000 test images.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from prunec.models.fashion_net.data import TEST, TRAINING, Images, load
from prunec.models.fetch import Progress
from prunec.models.runner import Batch, Runner, only_output

__all__ = ["build", "calibration", "metric", "test_inputs"]

SHIPPED = Path(__file__).parent / "fashion_net.onnx"


def build(folder: Path, *, cache: Path | None = None, progress: Progress | None = None) -> Path:
    """A copy of the file that ships with prunec; fetches nothing."""
    target = folder / "fashion-net.onnx"
    target.write_bytes(SHIPPED.read_bytes())
    return target


def calibration(samples: int = 64, seed: int = 0) -> Iterator[Batch]:
    yield from _drawn(load(TRAINING), samples, seed)


def test_inputs(samples: int, seed: int) -> Iterator[Batch]:
    yield from _drawn(load(TEST), samples, seed)


def metric(run: Runner, *, samples: int | None = None) -> dict[str, float]:
    """`accuracy` on the first `samples` test images (None: all 10 000), one image at a time."""
    data = load(TEST)
    count = min(samples or len(data.labels), len(data.labels))
    hits = 0
    for image, label in zip(data.inputs[:count], data.labels[:count], strict=True):
        hits += int(only_output(run({"image": image[None]}))[0].argmax() == label)
    return {"accuracy": hits / count}


def _drawn(data: Images, samples: int, seed: int) -> Iterator[Batch]:
    for i in np.random.default_rng(seed).permutation(len(data.labels))[:samples]:
        yield {"image": data.inputs[i : i + 1]}
