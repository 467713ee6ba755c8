"""What the dense model gives, cut to the channels that the pruned one has left, and where the two can be compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import torch

from prunec.backends.onnx.session import make_session, run
from prunec.passes.compensate.pairs import Kept
from prunec.recover.augment import Feeds, mirrored
from prunec.recover.borders import borders
from prunec.recover.losses import relative
from prunec.recover.student import tensors

ALIKE = 0.5
"""Squared error over variance; answers about different samples are apart by 2."""


class Teacher:
    """Values of the dense model by name, for any batch."""

    def __init__(self, dense: ir.Model, names: Sequence[str], kept: Kept, threads: int) -> None:
        self._session = make_session(dense, threads=threads, outputs=list(names))
        self._kept = kept

    def arrays(self, feeds: Feeds) -> Feeds:
        return {name: self._kept.restrict(name, array) for name, array in run(self._session, feeds).items()}

    def __call__(self, feeds: Feeds) -> dict[str, torch.Tensor]:
        return tensors(self.arrays(feeds))


def comparable(dense: ir.Model, pruned: ir.Model, kept: Kept, feeds: Feeds, threads: int) -> dict[str, int]:
    """Borders of the pruned model that the dense one has in the same shape, in order, with their bytes on `feeds`."""
    there = {value.name for node in dense.graph for value in node.outputs}
    names = [name for name in borders(pruned) if name in there]
    if not names:
        return {}
    wanted = Teacher(dense, names, kept, threads).arrays(feeds)
    found = run(make_session(pruned, threads=threads, outputs=names), feeds)
    return {
        name: array.nbytes
        for name, array in found.items()
        if array.shape == wanted[name].shape and bool(np.isfinite(wanted[name]).all())
    }


def sees_mirrored_alike(dense: ir.Model, outputs: Sequence[str], kept: Kept, feeds: Feeds, threads: int) -> bool:
    """Whether the dense model says much the same of images from the other side: of a cat, but not of text."""
    other = mirrored(feeds)
    if other is None:
        return False
    teacher = Teacher(dense, outputs, kept, threads)
    here, there = teacher(feeds), teacher(other)
    return all(float(relative(there[name], here[name])) < ALIKE for name in outputs)
