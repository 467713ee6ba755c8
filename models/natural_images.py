"""Photographs as 224×224 crops: to calibrate from GCompris and scikit-image, to test from scikit-image and foolbox.

Calibration and test crops never come from the same photograph: the split is by file, below.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from prunec.models.fetch import fetch
from prunec.models.packages import FOOLBOX, FOOLBOX_LABELS, SCIKIT_IMAGE
from prunec.models.photographs import Picture, gcompris_photographs
from prunec.models.text_lines import need_pillow

CALIBRATION_PHOTOGRAPHS = (
    "chelsea.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "gravel.png",
    "retina.jpg",
    "page.png",
    "ihc.png",
    "moon.png",
    "brick.png",
    "grass.png",
)
TEST_PHOTOGRAPHS = ("astronaut.png", "coffee.png", "camera.png", "hubble_deep_field.jpg", "coins.png")
SIZE = 224
SHARE = (0.15, 1.0)  # of the photograph's area that a crop covers, log-uniform


def photographs(names: Sequence[str]) -> list[Picture]:
    folder = fetch(SCIKIT_IMAGE) / "skimage/data"
    return [_read(folder / name) for name in names]


def calibration_pictures() -> list[Picture]:
    """Shuffled, so that any number of crops is a mixture of subjects."""
    found = [*gcompris_photographs(), *photographs(CALIBRATION_PHOTOGRAPHS)]
    return [found[i] for i in np.random.default_rng(0).permutation(len(found))]


def test_pictures() -> list[Picture]:
    return photographs(TEST_PHOTOGRAPHS) + [_read(path) for path, _ in labelled_files()]


def labelled_files() -> list[tuple[Path, int]]:
    """The 20 ImageNet pictures and their classes."""
    folder = fetch(FOOLBOX) / "foolbox/data"
    return [(folder / f"imagenet_{i:02d}_{label}.jpg", label) for i, label in enumerate(FOOLBOX_LABELS)]


def labelled_pictures() -> Iterator[tuple[Picture, int]]:
    """Resized to 256 on the short side, centre crop of 224."""
    for path, label in labelled_files():
        yield _centre_crop(_read(path)), label


def crops(pictures: Sequence[Picture], samples: int, seed: int) -> Iterator[Picture]:
    """Random crops, the pictures in turn: area 15–100 %, aspect 3:4 to 4:3, mirrored half of the time."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    for number in range(samples):
        picture = pictures[number % len(pictures)]
        height, width = picture.shape[:2]
        area = height * width * float(np.exp(rng.uniform(np.log(SHARE[0]), np.log(SHARE[1]))))
        aspect = float(np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3))))
        h, w = min(height, round((area / aspect) ** 0.5)), min(width, round((area * aspect) ** 0.5))
        top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        crop = Image.fromarray(picture).resize((SIZE, SIZE), Image.Resampling.BICUBIC, (left, top, left + w, top + h))
        pixels = np.asarray(crop)
        yield pixels[:, ::-1] if rng.integers(2) else pixels


def _centre_crop(picture: Picture) -> Picture:
    from PIL import Image

    height, width = picture.shape[:2]
    scale = 256 / min(height, width)
    resized = Image.fromarray(picture).resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    top, left = (resized.height - SIZE) // 2, (resized.width - SIZE) // 2
    return np.asarray(resized)[top : top + SIZE, left : left + SIZE]


def _read(path: Path) -> Picture:
    need_pillow()
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
