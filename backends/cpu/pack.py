"""Weights as the kernels read them: the non-zero blocks of a matrix, row of blocks by row of blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Packed:
    """`values` float32 [blocks, rows], `index` int32 [blocks], `pointer` int32 [rows of blocks + 1]."""

    values: np.ndarray
    index: np.ndarray
    pointer: np.ndarray

    @property
    def blocks(self) -> int:
        return len(self.index)


def pack_blocks(
    matrix: np.ndarray, offsets: np.ndarray, rows: int, part: np.ndarray | None = None, parts: int = 1
) -> Packed:
    """Blocks of `rows` consecutive rows × 1 column that hold a non-zero.

    `matrix` [outputs, columns]; `offsets` int [columns] is what goes into `index` for a column. Missing rows at the end
    are zero. `part` int [columns], below `parts`: blocks of part 0 come first, all rows of them, then those of part 1,
    …; `pointer` has an entry for every row of every part, also of parts that no column is in.
    """
    if part is not None and parts > 1:
        own = [pack_blocks(matrix[:, part == n], offsets[part == n], rows) for n in range(parts)]
        starts = np.cumsum([0, *(packed.blocks for packed in own)])
        pointers = [packed.pointer[:-1] + start for packed, start in zip(own, starts, strict=False)]
        return Packed(
            np.concatenate([packed.values for packed in own]), np.concatenate([packed.index for packed in own]),
            np.concatenate([*pointers, starts[-1:]]).astype(np.int32),
        )  # fmt: skip
    outputs, columns = matrix.shape
    row_blocks = -(-outputs // rows)
    padded = np.zeros((row_blocks * rows, columns), matrix.dtype)
    padded[:outputs] = matrix
    blocks = padded.reshape(row_blocks, rows, columns).transpose(0, 2, 1)
    present = (blocks != 0).any(axis=2)
    pointer = np.concatenate([[0], np.cumsum(present.sum(axis=1))]).astype(np.int32)
    index = np.broadcast_to(offsets, (row_blocks, columns))[present].astype(np.int32)
    return Packed(np.ascontiguousarray(blocks[present]), index, pointer)


def convolution_matrix(weight: np.ndarray, groups: int) -> np.ndarray:
    """[M, C/groups, kh, kw] as [M, kh·kw·C], zero where an output does not read an input."""
    outputs, own, kh, kw = weight.shape
    channels = own * groups
    matrix = np.zeros((outputs, kh, kw, channels), weight.dtype)
    per_group = outputs // groups
    for group in range(groups):
        mine = slice(group * per_group, (group + 1) * per_group)
        matrix[mine, :, :, group * own : (group + 1) * own] = weight[mine].transpose(0, 2, 3, 1)
    return matrix.reshape(outputs, kh * kw * channels)


def convolution_offsets(kernel: tuple[int, int], channels: int, steps: tuple[int, int, int]) -> np.ndarray:
    """Offsets of the columns of `convolution_matrix`, for steps (down, right, channel) between the elements of X."""
    down, right, channel = steps
    y, x, c = np.meshgrid(np.arange(kernel[0]), np.arange(kernel[1]), np.arange(channels), indexing="ij")
    return (y * down + x * right + c * channel).reshape(-1)
