"""Operators that move no data: reshapes, transpositions, slices, as other strides over the same buffer."""

from __future__ import annotations

from collections.abc import Sequence

from prunec.backends.cpu.lower.program import Tensor


def reshaped(x: Tensor, shape: Sequence[int]) -> Tensor | None:
    """`x` with another shape, None where that needs a copy: an axis would have to be split over unrelated strides."""
    axes = [(n, s) for n, s in zip(x.shape, x.strides, strict=True) if n != 1]
    wanted = [n for n in shape if n != 1]
    strides: list[int] = []
    i = o = 0
    while i < len(axes) and o < len(wanted):
        have, want, first_i, first_o = axes[i][0], wanted[o], i, o
        while have != want:
            if have < want:
                i += 1
                have *= axes[i][0]
            else:
                o += 1
                want *= wanted[o]
        for k in range(first_i, i):  # the input's axes must be one axis
            if axes[k][1] != axes[k + 1][1] * axes[k + 1][0]:
                return None
        step = axes[i][1]
        own = []
        for n in reversed(wanted[first_o : o + 1]):
            own.append(step)
            step *= n
        strides += reversed(own)
        i, o = i + 1, o + 1
    whole = iter(strides)
    return x.view(shape, [next(whole) if n != 1 else 0 for n in shape])


def transposed(x: Tensor, order: Sequence[int]) -> Tensor:
    return x.view([x.shape[axis] for axis in order], [x.strides[axis] for axis in order])


def as_image(x: Tensor) -> Tensor:
    """[n, c, l] as [n, c, 1, l]: an image of one line."""
    n, c, length = x.shape
    return x.view((n, c, 1, length), (x.strides[0], x.strides[1], 0, x.strides[2]))


def sliced(x: Tensor, axis: int, start: int, count: int, step: int = 1) -> Tensor:
    """`count` positions of one axis from `start`, every `step`-th; a negative step goes backwards."""
    shape, strides = list(x.shape), list(x.strides)
    offset = x.offset + start * strides[axis]
    shape[axis], strides[axis] = count, strides[axis] * step
    return x.view(shape, strides, offset)


def expanded(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Broadcast to `shape` as ONNX and numpy do, with strides of 0."""
    missing = len(shape) - len(x.shape)
    old, strides = [1] * missing + list(x.shape), [0] * missing + list(x.strides)
    return x.view(shape, [0 if n == 1 and m != 1 else s for n, m, s in zip(old, shape, strides, strict=True)])
