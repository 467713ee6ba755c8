"""Panels of quads: the input of some lines, copied so that neighbouring outputs read neighbouring pixels.

[plane, quad, pixel, 4]. A stride of s makes planes of every s-th line and column, one for each remainder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm.tirx.script.builder import ir as T

from prunec.backends.cpu.kernels.base import ceil_div, load, store
from prunec.backends.cpu.quads import PIXELS, QUAD

_BYTES = QUAD * PIXELS
_SETS = 8


@dataclass(frozen=True)
class QuadPanel:
    """For `lines` × `columns` outputs; lines are `pitch` pixels apart, or as near as can be where that is 0."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    quads: int
    lines: int
    columns: int
    wanted_pitch: int = 0

    def _taps(self, axis: int) -> list[tuple[int, int]]:
        """(Plane, shift) of every position of the kernel along an axis."""
        found = [divmod(k * self.dilations[axis], self.strides[axis]) for k in range(self.kernel[axis])]
        phases = list(dict.fromkeys(phase for _, phase in found))
        return [(phases.index(phase), shift) for shift, phase in found]

    def _planes(self, axis: int) -> list[tuple[int, int]]:
        """Of every plane along an axis: the first line or column of the input, and the largest shift."""
        found: dict[int, tuple[int, int]] = {}
        for k, (plane, shift) in enumerate(self._taps(axis)):
            start = k * self.dilations[axis] - shift * self.strides[axis]
            found[plane] = (start, max(shift, found.get(plane, (0, 0))[1]))
        return [found[plane] for plane in sorted(found)]

    @property
    def pitch(self) -> int:
        return max(self.wanted_pitch, self.columns + max(shift for _, shift in self._planes(1)))

    @property
    def run(self) -> int:
        """Pixels from the first to the last output."""
        return (self.lines - 1) * self.pitch + self.columns

    @property
    def plane(self) -> int:
        """Bytes of one quad in one plane."""
        lines = ceil_div((self.lines + max(shift for _, shift in self._planes(0))) * self.pitch, PIXELS)
        return _BYTES * (lines if lines % _SETS else lines + 1)

    @property
    def size(self) -> int:
        """Bytes, with room for the vectors that begin at the last pixel, shifted by the kernel."""
        shift = max(shift for _, shift in self._planes(1))
        count = len(self._planes(0)) * len(self._planes(1))
        return count * self.quads * self.plane + _BYTES * (2 + ceil_div(shift, PIXELS))

    def offsets(self) -> np.ndarray:
        """int64 [quads, kernel rows, kernel columns]: the byte where the first output finds its input."""
        found = np.zeros((self.quads, *self.kernel), np.int64)
        width = len(self._planes(1))
        for ky, (row, down) in enumerate(self._taps(0)):
            for kx, (column, right) in enumerate(self._taps(1)):
                start = (row * width + column) * self.quads * self.plane + QUAD * (down * self.pitch + right)
                found[:, ky, kx] = start + np.arange(self.quads) * self.plane
        return found

    def fill(self, x: Any, base: Any, apart: tuple[int, int], panel: Any, wide: int) -> None:
        """Write the panel of the outputs whose first one reads X from byte `base` on.

        `apart`: bytes from quad to quad and line to line of X; `wide`: of a register.
        """
        columns = self._planes(1)
        for row, (top, below) in enumerate(self._planes(0)):
            for column, (left, beyond) in enumerate(columns):
                first = (row * len(columns) + column) * self.quads * self.plane
                with T.serial(0, self.quads) as c, T.serial(0, self.lines + below) as j:
                    source = T.bind(base + c * apart[0] + (top + j * self.strides[0]) * apart[1] + left * QUAD)
                    target = T.bind(first + c * self.plane + j * (QUAD * self.pitch))
                    self._line(self.columns + beyond, x, source, panel, target, wide)

    def _line(self, pixels: int, x: Any, source: Any, panel: Any, target: Any, wide: int) -> None:
        """Whole vectors; what they write beyond the line is overwritten by the next one."""
        step, lanes = self.strides[1], wide // QUAD
        with T.serial(0, ceil_div(pixels, lanes)) as v:
            at = T.bind(source + v * (wide * step))
            if step == 1:
                store(panel, target + v * wide, load(x, at, wide), wide)
            elif step == 2:
                words = [T.reinterpret(f"int32x{lanes}", T.bind(load(x, at + n * wide, wide))) for n in (0, 1)]
                every = T.bind(T.Shuffle(words, list(range(0, 2 * lanes, 2))))
                store(panel, target + v * wide, T.reinterpret(f"uint8x{wide}", every), wide)
            else:
                with T.serial(0, lanes) as i, T.If(v * lanes + i < pixels), T.Then():
                    store(panel, target + (v * lanes + i) * QUAD, load(x, at + i * (QUAD * step), QUAD), QUAD)
