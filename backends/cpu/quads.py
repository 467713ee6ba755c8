"""The layout of int8 activations: four channels side by side, then pixels, then quads of channels. Needs no TVM.

[batch, quads, plane, 4] uint8. A plane is `gap` pixels, `top` lines, the lines of the image, `bottom` lines, and what
fills vectors. A line is `pitch` pixels: those of the image and `gap` more, which are the right border of this line and
the left border of the next.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

QUAD = 4
PIXELS = 16
"""Planes are multiples of so many pixels: one AVX-512 vector, two of AVX2, one cache line."""
_SLACK = 2 * QUAD * PIXELS
_SETS = 8
"""Planes a multiple of so many cache lines apart would share few sets of the first cache."""


@dataclass(frozen=True)
class Quads:
    """An image, or rows of a product as an image of one line. `border`: pixels (top, left, bottom, right) around it."""

    batch: int
    channels: int
    height: int
    width: int
    border: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def quads(self) -> int:
        return -(-self.channels // QUAD)

    @property
    def gap(self) -> int:
        """Columns between two lines."""
        return max(self.border[1], self.border[3])

    @property
    def pitch(self) -> int:
        """Pixels from line to line."""
        return self.width + self.gap

    @property
    def run(self) -> int:
        """Pixels from the first to the last one of the image, the gaps between its lines with them."""
        return (self.height - 1) * self.pitch + self.width

    @property
    def plane(self) -> int:
        """Pixels from quad to quad. Vectors of pixels that begin within the image end within its plane."""
        image = self.gap + self.border[0] * self.pitch + PIXELS * math.ceil(self.run / PIXELS)
        whole = self.gap + (self.border[0] + self.height + self.border[2]) * self.pitch
        lines = math.ceil(max(image, whole) / PIXELS)
        return PIXELS * (lines if lines % _SETS else lines + 1)

    @property
    def first(self) -> int:
        """The byte of channel 0 of pixel (0, 0) of the first image."""
        return QUAD * (self.gap + self.border[0] * self.pitch)

    @property
    def strides(self) -> tuple[int, int, int, int]:
        """Bytes from image to image, quad to quad, line to line, and pixel to pixel."""
        return QUAD * self.plane * self.quads, QUAD * self.plane, QUAD * self.pitch, QUAD

    def quad(self, channel: int) -> int:
        """The byte of pixel (0, 0) in the quad that begins with this channel, a multiple of 4, of the first image."""
        assert channel % QUAD == 0, "quads are written whole"
        return self.first + channel // QUAD * self.strides[1]

    @property
    def size(self) -> int:
        """Bytes, with room for two vectors that begin at the last border: every second pixel is read like that."""
        return self.batch * self.quads * QUAD * self.plane + _SLACK

    def pack(self, image: np.ndarray, zero: int) -> np.ndarray:
        """uint8 [size] of an image uint8 [batch, channels, height, width]; `zero` is everywhere else."""
        held = np.full(self.size, zero, np.uint8)
        pixels = self._pixels(held)
        for channel in range(self.channels):
            pixels[:, channel // QUAD, :, :, channel % QUAD] = image[:, channel]
        return held

    def unpack(self, held: np.ndarray) -> np.ndarray:
        """The image uint8 [batch, channels, height, width] in a buffer."""
        pixels = self._pixels(held).transpose(0, 1, 4, 2, 3)
        shape = (self.batch, self.quads * QUAD, self.height, self.width)
        found: np.ndarray = pixels.reshape(shape)[:, : self.channels]
        return found

    def _pixels(self, held: np.ndarray) -> np.ndarray:
        """A view [batch, quads, height, width, 4]."""
        planes = held[: self.size - _SLACK].reshape(self.batch, self.quads, self.plane, QUAD)
        start = self.first // QUAD
        rows = np.lib.stride_tricks.as_strided(
            planes[:, :, start:],
            (self.batch, self.quads, self.height, self.width, QUAD),
            (*planes.strides[:2], self.pitch * QUAD, QUAD, 1),
        )
        return rows


@dataclass(frozen=True)
class FloatRows:
    """float32 [batch, rows, channels]: what a layer gives to operators that compute in floating point."""

    batch: int
    rows: int
    channels: int

    @property
    def size(self) -> int:
        return self.batch * self.rows * self.channels
