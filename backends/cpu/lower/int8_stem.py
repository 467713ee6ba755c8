"""Convolutions over few channels with a stride: pixels that lie side by side become channels of one quad.

A quad holds four channels whether there are so many or not. A convolution over C channels with stride s along an axis
reads s neighbours as C · s channels, with a kernel that is s times shorter and stride 1: the same products, without the
channels that do not exist. Waveforms and spectra come with one channel.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from prunec.backends.cpu.expression import operand
from prunec.backends.cpu.lower.held import Held
from prunec.backends.cpu.lower.program import Buffer
from prunec.backends.cpu.lower.state import State
from prunec.backends.cpu.quads import QUAD, Quads


def folding(held: Held, strides: tuple[int, int], dilations: tuple[int, int], pads: tuple[int, ...]) -> int | None:
    """The axis of the image (0 down, 1 right) whose neighbours fit into a quad, None where there is none."""
    x = held.quads
    for axis, length in enumerate((x.height, x.width)):
        step = strides[axis]
        fits = step > 1 and x.channels * step <= QUAD and length % step == 0 and dilations[axis] == 1
        if fits and not any(pads):
            return axis
    return None


def folded_input(state: State, held: Held, axis: int, step: int) -> Held:
    """The same bytes with `step` neighbours as channels: channel k · C + c is that of neighbour k."""
    x = held.quads
    size = [x.height, x.width]
    size[axis] //= step
    quads = Quads(x.batch, x.channels * step, size[0], size[1])
    y = replace(held, buffer=Buffer("arena", "uint8", quads.size), quads=quads)
    source, target = held.tensor(), y.tensor()
    along = source.strides[2 + axis]
    strides = [*source.strides[:4]]
    strides[2 + axis] = along * step
    for neighbour in range(step):
        shape = (x.batch, 1, *size, x.channels)
        first = source.view(shape, (*strides, 1), source.offset + neighbour * along)
        second = target.view(shape, target.strides, target.offset + neighbour * x.channels)
        state.pointwise(operand(0, "uint8"), [first], second)
    return y


def folded_weight(matrix: np.ndarray, axis: int, step: int) -> np.ndarray:
    """[M, C, kh, kw] for such an input, with zeros behind the last tap where `step` does not divide the kernel."""
    outputs, channels, *kernel = matrix.shape
    missing = -kernel[axis] % step
    padded = np.pad(matrix, [(0, 0), (0, 0), *((0, missing if a == axis else 0) for a in (0, 1))])
    moved = np.moveaxis(padded, 2 + axis, -1)
    split = moved.reshape(*moved.shape[:-1], -1, step)  # [M, C, other, taps, step]
    ordered = split.transpose(0, 4, 1, 2, 3).reshape(outputs, step * channels, split.shape[2], split.shape[3])
    return np.ascontiguousarray(ordered if axis == 1 else ordered.swapaxes(2, 3))
