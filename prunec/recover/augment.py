"""More samples out of few, by modality: what a network may see besides, without a label that could become wrong.

    images    (rank 4)     moved, or a part of them enlarged, and mirrored where asked (`pictures`); noise; half of them
                           mixed in pairs
    signals   (rank 2, 3)  gain from .7 to 1.4, noise, half of them mixed in pairs
    texts    (integers)    half of them go on as another text from some token on, masks alike

The dense model is asked about what comes out, so nothing has to stay of the same kind. Values stay within the range
that the samples have. Inputs of which some are integers and others are not stay as they are, and so do samples that do
not lie on the leading axis.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from prunec.recover.pictures import axes, viewed

Feeds = dict[str, np.ndarray]
NOISE = 0.05
"""Standard deviation of the noise, as a share of the sample's own."""
GAIN = (0.7, 1.4)
MIX = 0.5


def can_augment(feeds: Mapping[str, np.ndarray]) -> bool:
    """Whether every input is an image or a signal, batched, or all of them are integers about the same tokens."""
    return _is_text(feeds) or all(array.dtype.kind == "f" and 2 <= array.ndim <= 4 for array in feeds.values())


def _is_text(feeds: Mapping[str, np.ndarray]) -> bool:
    """Whether all inputs are integers of one shape [N, L]."""
    arrays = list(feeds.values())
    return all(array.dtype.kind in "iu" and array.ndim == 2 and array.shape == arrays[0].shape for array in arrays)


def augmented(feeds: Mapping[str, np.ndarray], rng: np.random.Generator, *, mirrors: bool = False) -> Feeds:
    """Another batch of the same shapes and types; all inputs of a sample are mixed with those of the same partner.

    `mirrors`: half of the images are seen from the other side.
    """
    if _is_text(feeds):
        return _spliced(feeds, rng)
    count = len(next(iter(feeds.values())))
    partner = rng.permutation(count)
    share = np.where(rng.random(count) < MIX, rng.uniform(0, 0.5, count), 0.0)
    return {name: _one(array, partner, share, rng, mirrors) for name, array in feeds.items()}


def mirrored(feeds: Mapping[str, np.ndarray]) -> Feeds | None:
    """The same batch from the other side; None where not all inputs are images."""
    if not all(array.dtype.kind == "f" and array.ndim == 4 for array in feeds.values()):
        return None
    return {name: np.ascontiguousarray(np.flip(array, 1 + axes(array[0])[1])) for name, array in feeds.items()}


def _one(
    array: np.ndarray, partner: np.ndarray, share: np.ndarray, rng: np.random.Generator, mirrors: bool
) -> np.ndarray:
    low, high = float(array.min()), float(array.max())
    per_sample = (-1, *[1] * (array.ndim - 1))
    x = array.astype(np.float32)
    if array.ndim == 4:
        x = np.stack([viewed(sample, rng, mirrors=mirrors) for sample in x])
    else:
        x = x * np.exp(rng.uniform(math.log(GAIN[0]), math.log(GAIN[1]), len(x))).reshape(per_sample).astype(np.float32)
    weight = share.reshape(per_sample).astype(np.float32)
    x = x * (1 - weight) + x[partner] * weight
    deviation = x.std(axis=tuple(range(1, x.ndim)), keepdims=True)
    x += (
        NOISE
        * rng.random((len(x), *per_sample[1:]), dtype=np.float32)
        * deviation
        * rng.standard_normal(x.shape, dtype=np.float32)
    )
    found: np.ndarray = np.clip(x, low, high).astype(array.dtype)
    return found


def _spliced(feeds: Mapping[str, np.ndarray], rng: np.random.Generator) -> Feeds:
    """Texts that go on as their partner from a token on that is within both."""
    found = {name: array.copy() for name, array in feeds.items()}
    ends = _ends(feeds)
    for i, partner in enumerate(rng.permutation(len(ends))):
        most = min(ends[i], ends[partner])
        if rng.random() < MIX and most > 1:
            place = int(rng.integers(1, most))
            for name, array in feeds.items():
                found[name][i, place:] = array[partner, place:]
    return found


def _ends(feeds: Mapping[str, np.ndarray]) -> list[int]:
    """Where the padding of every sample begins: the columns from which on no input changes any more."""
    changes = np.any([array != array[:, -1:] for array in feeds.values()], axis=0)
    length = changes.shape[1]
    return [int(length - np.argmax(own[::-1])) if own.any() else length for own in changes]
