"""What the rules of lowering share: the tensors so far, how new ones are laid out, and the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from prunec.backends.cpu.expression import Expression, operand
from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.base import Access, Kernel
from prunec.backends.cpu.kernels.pointwise import Pointwise
from prunec.backends.cpu.lower import quad_layers
from prunec.backends.cpu.lower.candidates import Choose, by_rule
from prunec.backends.cpu.lower.held import Held, as_image
from prunec.backends.cpu.lower.program import Buffer, Program, Step, Tensor, plain_strides
from prunec.backends.cpu.lower.routines import Routine, ZeroBorder
from prunec.backends.cpu.lower.views import expanded
from prunec.backends.cpu.lower.weights import weights_of
from prunec.graph.shapes import dims

Border = tuple[int, int, int, int]
NO_BORDER: Border = (0, 0, 0, 0)
_DTYPES = {
    ir.DataType.FLOAT: "float32", ir.DataType.INT64: "int64", ir.DataType.INT32: "int32", ir.DataType.BOOL: "uint8",
    ir.DataType.UINT8: "uint8", ir.DataType.INT8: "int8",
}  # fmt: skip
_CONFLICT_BYTES = 1024


class Unsupported(Exception):
    """A rule cannot lower its node: the reason, in words. The node then runs in ONNX Runtime."""


def shape_of(value: ir.Value | None) -> tuple[int, ...]:
    """Static shape of a value."""
    shape = dims(value)
    if shape is None or any(not isinstance(d, int) for d in shape):
        raise Unsupported(f"the shape of {value.name if value else 'an input'} is not known before it runs")
    return tuple(int(d) for d in shape if isinstance(d, int))


def dtype_of(value: ir.Value) -> str:
    """The dtype in the program; bools are bytes."""
    if value.dtype not in _DTYPES:
        raise Unsupported(f"no kernels for {value.dtype} ({value.name})")
    return _DTYPES[value.dtype]


@dataclass
class State:
    """`tensors` by the name of their value. `borders`: zeros that later convolutions want around a value.

    `bytes`: what quantisers gave; `held`: the float values that those bytes stand for, which are no tensors until
    somebody asks for one.
    """

    isa: Isa
    borders: Mapping[str, Border] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    bytes: dict[str, Held] = field(default_factory=dict)
    held: dict[str, Held] = field(default_factory=dict)
    program: Program = field(default_factory=Program)
    choose: Choose = by_rule

    def tensor(self, value: ir.Value | None) -> Tensor:
        """Where a value lies; weights become part of the program when they are first asked for."""
        assert value is not None and value.name is not None
        if value.name not in self.tensors and value.name in self.held:
            self.tensors[value.name] = self._numbers(value, self.held[value.name])
        if value.name not in self.tensors:
            data = weights_of(value)
            if data is None:
                raise Unsupported(f"{value.name} is not computed by generated code")
            dtype = dtype_of(value)
            self.tensors[value.name] = self.weights(data.astype(dtype), data.shape)
        return self.tensors[value.name]

    def is_known(self, value: ir.Value | None) -> bool:
        if value is None or value.name in self.tensors or value.name in self.held:
            return value is not None
        return weights_of(value) is not None

    def _numbers(self, value: ir.Value, held: Held) -> Tensor:
        """What bytes stand for, as float32."""
        y = self.result(value)
        image = as_image(y, held.axis)
        assert image is not None  # it is new: an image, or plain
        access = Access(image.buffer.elements, image.offset, image.strides, image.dtype)
        built = quad_layers.dequantise(held.quads, access, *held.grid)
        self.emit(built.kernel, [held.buffer, *(self.weights(a).buffer for a in built.weights), y.buffer])
        return y

    def hold(self, value: ir.Value, held: Held) -> None:
        """A float value is there in 8 bits."""
        assert value.name is not None
        self.held[value.name] = held

    def hold_bytes(self, value: ir.Value, held: Held) -> None:
        """What a quantiser gives; its grid is `held`'s."""
        assert value.name is not None
        self.bytes[value.name] = held

    def finish_bytes(self, held: Held) -> None:
        """Behind the step that wrote the pixels of an image: its border."""
        if any(held.quads.border):
            built = quad_layers.border(held.quads, held.zero)
            self.emit(built.kernel, [*(self.weights(a).buffer for a in built.weights), held.buffer])

    def weights(self, data: np.ndarray, shape: Sequence[int] | None = None) -> Tensor:
        """Constant contents as a plain tensor."""
        flat = np.ascontiguousarray(data).reshape(-1)
        size = tuple(data.shape if shape is None else shape)
        buffer = Buffer("weights", flat.dtype.name, flat.size, flat)
        return Tensor(size, flat.dtype.name, buffer, 0, plain_strides(size))

    def plain(self, shape: Sequence[int], dtype: str) -> Tensor:
        """A new dense tensor."""
        size = int(np.prod(shape, dtype=np.int64))
        return Tensor(tuple(shape), dtype, Buffer("arena", dtype, size), 0, plain_strides(shape))

    def image(self, shape: Sequence[int], border: Border = NO_BORDER, *, channels_last: bool = True) -> Tensor:
        """A new float32 tensor [n, c, h, w] within a border of zeros.

        Channels last: pixels may lie further apart than their channels need, where a power of two would put the pixels
        of a tile into the same sets of the first cache.
        """
        n, c, h, w = shape
        top, left, bottom, right = border
        rows, columns = h + top + bottom, w + left + right
        apart = c + 16 if c * 4 % _CONFLICT_BYTES == 0 else c
        pixel, planes = (apart, n) if channels_last else (1, n * c)
        size = planes * rows * columns * pixel
        buffer = Buffer("arena", "float32", size)
        if border != NO_BORDER:
            self.emit(ZeroBorder(planes, rows, columns, pixel, border), (buffer,))
        line = columns * pixel
        strides = (rows * line, 1, line, pixel) if channels_last else (c * rows * line, rows * line, line, 1)
        return Tensor(tuple(shape), "float32", buffer, (top * columns + left) * pixel, strides, border)

    def result(self, value: ir.Value, *, like: Tensor | None = None) -> Tensor:
        """A new tensor for a value: an image with its border, or plain, as the tensor it is computed from."""
        assert value.name is not None
        shape, dtype = shape_of(value), dtype_of(value)
        is_image = like is None or like.strides[1:2] == (1,) or value.name in self.borders
        if len(shape) == 4 and dtype == "float32" and is_image:
            return self.image(shape, self.borders.get(value.name, NO_BORDER))
        return self.plain(shape, dtype)

    def define(self, value: ir.Value, tensor: Tensor) -> None:
        assert value.name is not None
        self.tensors[value.name] = tensor

    def emit(self, call: Kernel | Routine, buffers: Sequence[Buffer], nodes: Sequence[ir.Node] = ()) -> None:
        self.program.steps.append(Step(call, tuple(buffers), tuple(node.name or node.op_type for node in nodes)))

    def pointwise(self, value: Expression, inputs: Sequence[Tensor], y: Tensor, nodes: Sequence[ir.Node] = ()) -> None:
        """y = value(inputs), all broadcast to y's shape, with as few loops as the strides allow."""
        views = [expanded(x, y.shape) for x in inputs]
        loops = collapsed(y.shape, [t.strides for t in (*views, y)])
        accesses = [_access(t, [strides[i] for _, strides in loops]) for i, t in enumerate((*views, y))]
        kernel = Pointwise(tuple(extent for extent, _ in loops), tuple(accesses[:-1]), accesses[-1], value)
        self.emit(kernel, [t.buffer for t in (*views, y)], nodes)

    def copy(self, x: Tensor, y: Tensor, nodes: Sequence[ir.Node] = ()) -> Tensor:
        """Move the elements of x to y; returns y."""
        self.pointwise(operand(0, x.dtype), [x], y, nodes)
        return y

    def as_plain(self, x: Tensor) -> Tensor:
        """`x` itself where it is dense and in order, else a copy that is."""
        return x if x.is_plain() else self.copy(x, self.plain(x.shape, x.dtype))


def _access(tensor: Tensor, strides: Sequence[int]) -> Access:
    return Access(tensor.buffer.elements, tensor.offset, tuple(strides), tensor.dtype)


def collapsed(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> list[tuple[int, tuple[int, ...]]]:
    """Loops (extent, one stride per tensor), the last tensor's densest axis innermost; axes that run on are joined."""
    axes = [(n, tuple(own[axis] for own in strides)) for axis, n in enumerate(shape) if n != 1]
    axes.sort(key=lambda axis: -abs(axis[1][-1]))
    loops: list[tuple[int, tuple[int, ...]]] = []
    for extent, own in axes:
        if loops and all(outer == inner * extent for outer, inner in zip(loops[-1][1], own, strict=True)):
            loops[-1] = (loops[-1][0] * extent, own)
        else:
            loops.append((extent, own))
    return loops or [(1, tuple(1 for _ in strides))]
