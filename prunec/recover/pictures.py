"""Other views of a picture: what a camera that moved, came closer or stood in front of a mirror would have seen."""

from __future__ import annotations

import math

import numpy as np

SHIFT = 1 / 8
ZOOMED = 0.5
"""Share of the pictures that come closer; the others move."""
AREA, ASPECT = (0.35, 1.0), 4 / 3
"""Log-uniform, of the part that is enlarged: its share of the picture, and how far its shape may be from that."""


def viewed(image: np.ndarray, rng: np.random.Generator, *, mirrors: bool) -> np.ndarray:
    """[C, H, W], or [H, W, C] where the last axis alone has a length that colours have: another view, of that shape."""
    rows, columns = axes(image)
    if mirrors and rng.random() < 0.5:
        image = np.flip(image, columns)
    return (_zoomed if rng.random() < ZOOMED else _shifted)(image, (rows, columns), rng)


def axes(image: np.ndarray) -> tuple[int, int]:
    """Those of the rows and of the columns."""
    is_last = image.shape[-1] in (1, 3, 4) and image.shape[0] not in (1, 3, 4)
    return (0, 1) if is_last else (1, 2)


def _shifted(image: np.ndarray, sides: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Moved along both sides, the edges repeated."""
    for axis in sides:
        most = int(image.shape[axis] * SHIFT)
        step = int(rng.integers(-most, most + 1)) if most else 0
        if step:
            places = np.clip(np.arange(image.shape[axis]) - step, 0, image.shape[axis] - 1)
            image = image.take(places, axis=axis)
    return image


def _zoomed(image: np.ndarray, sides: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A part of it in the size of the whole, bilinear."""
    area = math.exp(rng.uniform(math.log(AREA[0]), math.log(AREA[1])))
    stretch = math.exp(rng.uniform(-1, 1) * math.log(ASPECT))
    for axis, share in zip(sides, (math.sqrt(area / stretch), math.sqrt(area * stretch)), strict=True):
        size = image.shape[axis]
        part = max(1.0, min(1.0, share) * size)
        image = _enlarged(image, axis, rng.uniform(0, size - part), part)
    return image


def _enlarged(image: np.ndarray, axis: int, start: float, part: float) -> np.ndarray:
    """`part` pixels from `start` on, spread over the whole axis; centres of pixels map to centres."""
    size = image.shape[axis]
    places = np.clip(start + (np.arange(size) + 0.5) * part / size - 0.5, 0, size - 1)
    below = places.astype(np.intp)
    above = np.minimum(below + 1, size - 1)
    along = [1] * image.ndim
    along[axis] = size
    weight = (places - below).astype(image.dtype).reshape(along)
    found: np.ndarray = image.take(below, axis) * (1 - weight) + image.take(above, axis) * weight
    return found
