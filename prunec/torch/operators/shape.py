"""Operators that change or read a shape, or make a tensor from one."""

from __future__ import annotations

from typing import Any

import torch

from prunec.torch.operators.common import Ints, ints, torch_type


def shape(x: Any, *, start: int = 0, end: int | None = None) -> Any:
    return torch.tensor(list(x.shape)[start:end], dtype=torch.int64, device=x.device)


def size(x: Any) -> Any:
    return torch.tensor(x.numel(), dtype=torch.int64, device=x.device)


def reshape(x: Any, shape: Ints, *, allowzero: int = 0) -> Any:
    """0 copies the input's length (unless `allowzero`), −1 is what is left."""
    wanted = ints(shape) or []
    if not allowzero:
        wanted = [x.shape[i] if d == 0 else d for i, d in enumerate(wanted)]
    return torch.reshape(x, wanted)


def flatten(x: Any, *, axis: int = 1) -> Any:
    """Two axes: those before `axis`, and the rest."""
    if axis < 0:
        axis += x.dim()
    rows = 1
    for length in x.shape[:axis]:
        rows *= length
    return torch.reshape(x, (rows, -1)) if x.numel() else torch.reshape(x, (rows, 0))


def squeeze(x: Any, axes: Ints = None) -> Any:
    if axes is None:
        return torch.squeeze(x)
    return torch.squeeze(x, tuple(ints(axes) or ()))


def unsqueeze(x: Any, axes: Ints) -> Any:
    """Axes count in the result."""
    wanted = ints(axes) or []
    rank = x.dim() + len(wanted)
    for axis in sorted(a % rank for a in wanted):
        x = torch.unsqueeze(x, axis)
    return x


def expand(x: Any, shape: Ints) -> Any:
    """Broadcast both ways: a length of 1 in `shape` keeps the input's."""
    wanted = ints(shape) or []
    rank = max(len(wanted), x.dim())
    own = [1] * (rank - x.dim()) + list(x.shape)
    wanted = [1] * (rank - len(wanted)) + wanted
    return x.expand([max(a, b) if 0 not in (a, b) else 0 for a, b in zip(own, wanted, strict=True)])


def tile(x: Any, repeats: Ints) -> Any:
    return torch.tile(x, ints(repeats) or [])


def constant_of_shape(shape: Ints, *, value: Any = None) -> Any:
    wanted = ints(shape) or []
    if value is None:
        return torch.zeros(wanted)
    return value.reshape(()).expand(wanted).clone()


def range_(start: Any, limit: Any, delta: Any) -> Any:
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype, device=start.device)


def eye_like(x: Any, *, dtype: int | None = None, k: int = 0) -> Any:
    kind = x.dtype if dtype is None else torch_type(dtype)
    return torch.diag_embed(torch.ones(min(x.shape), dtype=kind, device=x.device), k)[: x.shape[0], : x.shape[1]]


def depth_to_space(x: Any, *, blocksize: int, mode: str = "DCR") -> Any:
    n, c, h, w = x.shape
    b = blocksize
    if mode == "DCR":
        y = x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        y = x.reshape(n, c // b**2, b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    return y.reshape(n, c // b**2, h * b, w * b)


def space_to_depth(x: Any, *, blocksize: int) -> Any:
    n, c, h, w = x.shape
    b = blocksize
    y = x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4)
    return y.reshape(n, c * b**2, h // b, w // b)


OPERATORS = {
    "ConstantOfShape": constant_of_shape,
    "DepthToSpace": depth_to_space,
    "Expand": expand,
    "Flatten": flatten,
    "Range": range_,
    "Reshape": reshape,
    "Shape": shape,
    "Size": size,
    "SpaceToDepth": space_to_depth,
    "Squeeze": squeeze,
    "Tile": tile,
    "Unsqueeze": unsqueeze,
}
