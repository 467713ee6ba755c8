"""Panels: the input of some lines of an image, copied so that pixels are neighbours in memory: [phase, channel, pixel].

Lines of a panel follow each other without gaps and are as wide as the output plus what a kernel reaches beyond it. So
every kernel position is one offset, and a run of pixels may go on over the ends of lines: the few sums that it then
makes of two lines are dropped. A stride of s makes panels of every s-th line and column beside each other, one for each
remainder (phase).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm.tirx.script.builder import ir as T

from prunec.backends.cpu.kernels.base import ceil_div, load, pieces, splat, store

_SET_BYTES = 1024
"""Channels this far apart, or a multiple, would share few sets of the first cache."""


@dataclass(frozen=True)
class Window:
    """`kernel` positions over `channels` of X; `steps`: its elements between two lines, columns and channels."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    channels: int
    steps: tuple[int, int, int]

    def phases(self, axis: int) -> dict[int, int]:
        """Remainder by the stride → how many lines or columns beyond the output are read."""
        reach: dict[int, int] = {}
        for k in range(self.kernel[axis]):
            shift, phase = divmod(k * self.dilations[axis], self.strides[axis])
            reach[phase] = max(reach.get(phase, 0), shift)
        return reach


@dataclass(frozen=True)
class Panel:
    """The panel of `lines` × `columns` outputs, in vectors of `lanes` pixels."""

    window: Window
    lines: int
    columns: int
    lanes: int

    @property
    def width(self) -> int:
        """Pixels from line to line."""
        return self.columns + max(self.window.phases(1).values())

    @property
    def channel(self) -> int:
        """Elements from channel to channel."""
        size = ceil_div((self.lines + max(self.window.phases(0).values())) * self.width, self.lanes) * self.lanes
        return size + self.lanes if size * 4 % _SET_BYTES == 0 else size

    @property
    def run(self) -> int:
        """Pixels from the first to the last output, those between the lines with them."""
        return (self.lines - 1) * self.width + self.columns

    @property
    def size(self) -> int:
        """Elements, with room for the vectors that end beyond the last line."""
        planes = len(self.window.phases(0)) * len(self.window.phases(1))
        return planes * self.window.channels * self.channel + self._slack

    @property
    def _slack(self) -> int:
        return 2 * self.lanes

    def offsets(self) -> np.ndarray:
        """int64 [kernel rows · kernel columns · channels]: where the first output finds its input."""
        window, plane, found = self.window, self.window.channels * self.channel, []
        rows, columns = list(window.phases(0)), list(window.phases(1))
        for ky in range(window.kernel[0]):
            down, row = divmod(ky * window.dilations[0], window.strides[0])
            for kx in range(window.kernel[1]):
                right, column = divmod(kx * window.dilations[1], window.strides[1])
                number = rows.index(row) * len(columns) + columns.index(column)
                start = number * plane + down * self.width + right
                found.append(start + np.arange(window.channels) * self.channel)
        return np.concatenate(found)

    def fill(self, x: Any, base: Any, panel: Any) -> None:
        """Write the panel of the outputs whose first one reads X from `base` on."""
        window, plane = self.window, self.window.channels * self.channel
        number = 0
        for row, below in window.phases(0).items():
            for column, beyond in window.phases(1).items():
                with T.serial(0, self.lines + below) as j:
                    down = (row + j * window.strides[0]) * window.steps[0]
                    source = T.bind(base + down + column * window.steps[1])
                    target = T.bind(number * plane + j * self.width)
                    self._line(self.columns + beyond, x, source, panel, target)
                number += 1
        for start in range(0, self._slack, self.lanes):
            store(panel, self.size - self._slack + start, splat(0.0, self.lanes), self.lanes)

    def _line(self, pixels: int, x: Any, source: Any, panel: Any, target: Any) -> None:
        """All channels of one line. Vectors that reach beyond it are overwritten by the line that follows."""
        lanes, channels = self.lanes, self.window.channels
        step, apart = self.window.strides[1] * self.window.steps[1], self.window.steps[2]
        whole, rest = divmod(pixels, lanes)

        def square(c: Any, wide: int, start: Any, count: int) -> None:
            vectors = [T.bind(load(x, source + c * apart + (start + i) * step, wide, apart)) for i in range(count)]
            for i, vector in enumerate(transposed(vectors, wide, lanes)):
                at = target + (c + i) * self.channel + start
                for first, part in pieces(count, lanes) if count < lanes else ((0, lanes),):
                    store(panel, at + first, part_of(vector, first, part, lanes), part)

        def column(start: Any, count: int) -> None:
            """All channels of `count` pixels: as many streams through memory, each of which goes straight on."""
            if channels >= lanes:
                with T.serial(0, channels // lanes) as c:
                    square(c * lanes, lanes, start, count)
            for first, wide in pieces(channels % lanes, lanes):
                square(channels // lanes * lanes + first, wide, start, count)

        def copied(c: Any) -> None:
            def move(start: Any, wide: int) -> None:
                value = load(x, source + c * apart + start * step, wide, step)
                store(panel, target + c * self.channel + start, value, wide)

            if whole:
                with T.serial(0, whole) as g:
                    move(g * lanes, lanes)
            for start, wide in pieces(rest, lanes):
                move(whole * lanes + start, wide)

        if apart != 1:
            with T.serial(0, channels) as c:
                copied(c)
            return
        if whole:
            with T.serial(0, whole) as g:
                column(g * lanes, lanes)
        if rest:
            column(whole * lanes, rest)


def transposed(vectors: Sequence[Any], wide: int, lanes: int) -> list[Any]:
    """`wide` vectors of `lanes` from up to `lanes` vectors of `wide`; what is missing becomes zero.

    Exchanges the corners of ever smaller squares (Eklundh 1972): one shuffle for each vector and step.
    """
    missing = [splat(0.0, lanes)] * (lanes - len(vectors))
    rows = [*(_repeated(vector, wide, lanes) for vector in vectors), *missing]
    half = lanes // 2
    while half:
        for i in (i for i in range(lanes) if not i & half):
            pair = [rows[i], rows[i | half]]
            low = [n ^ half | lanes if n & half else n for n in range(lanes)]
            high = [n | lanes if n & half else n | half for n in range(lanes)]
            rows[i], rows[i | half] = (T.bind(T.Shuffle(pair, lane)) for lane in (low, high))
        half //= 2
    return rows[:wide]


def part_of(vector: Any, start: int, wide: int, lanes: int) -> Any:
    """`wide` of its lanes, from `start` on."""
    return vector if wide == lanes else T.Shuffle([vector], list(range(start, start + wide)))


def _repeated(vector: Any, wide: int, lanes: int) -> Any:
    if wide == lanes:
        return vector
    return T.Broadcast(vector, lanes) if wide == 1 else T.Shuffle([vector] * (lanes // wide), list(range(lanes)))
