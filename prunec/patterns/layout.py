"""How a weight lies in a matrix."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """A weight as a matrix [outputs, positions·channels]: columns ordered (kernel position, input channel).

    A 3×3 convolution has 9 positions, a product one. M consecutive columns are then M consecutive *input channels* of
    one kernel position, which is the axis that sparse tensor cores read. Flattening (C, kh, kw) puts kernel positions
    into one N:M group, as SparseGPT and its descendants do; TensorRT refuses such tensors.
    """

    positions: int
    channels: int

    @property
    def columns(self) -> int:
        return self.positions * self.channels

    def part(self, columns: int) -> Layout:
        """The layout of a slice of consecutive columns that begins and ends at a pattern's group."""
        return Layout(1, columns)
