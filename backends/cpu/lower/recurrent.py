"""LSTM, GRU and RNN: the inputs' product for all time steps at once, then one kernel for all steps.

The hidden states of all steps lie in one buffer [slot, row, direction, hidden], what they start from in the slots
before and behind, so that no step is a special case and joining the directions afterwards is a view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunec.backends.cpu.expression import const, operand
from prunec.backends.cpu.kernels.base import Access
from prunec.backends.cpu.kernels.panel import Window
from prunec.backends.cpu.kernels.recurrent import GATES, Cell, Recurrent
from prunec.backends.cpu.lower.products import Reads, product
from prunec.backends.cpu.lower.program import Buffer, Tensor, plain_strides
from prunec.backends.cpu.lower.routines import Fill
from prunec.backends.cpu.lower.state import State, Unsupported, shape_of
from prunec.backends.cpu.lower.views import sliced, transposed
from prunec.backends.cpu.pack import pack_blocks
from prunec.graph.shapes import constant

_ACTIVATIONS = {"Sigmoid": "sigmoid", "Tanh": "tanh", "Relu": "relu"}
_DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}


@dataclass(frozen=True)
class _Layer:
    """The weights: `w` [directions, gates · hidden, inputs], `r` the same from the hidden state, biases of both."""

    kind: Cell
    w: np.ndarray
    r: np.ndarray
    b: np.ndarray
    activations: tuple[str, ...]
    reverse: bool

    @property
    def directions(self) -> int:
        return len(self.w)

    @property
    def hidden(self) -> int:
        return int(self.r.shape[2])

    @property
    def gates(self) -> int:
        return GATES[self.kind]


@dataclass(frozen=True)
class _Memory:
    """Views of one buffer: `slots` [steps + 2, rows, directions, hidden], `cell` and `spare` [rows, directions, …]."""

    slots: Tensor
    cell: Tensor
    spare: Tensor


def recurrent(state: State, node: ir.Node) -> Sequence[ir.Node]:
    layer = _layer(node)
    is_batch_first = node.attributes.get_int("layout", 0) == 1
    x = state.tensor(node.inputs[0])
    x = transposed(x, (1, 0, 2)) if is_batch_first else x
    steps, rows = x.shape[:2]
    lengths = _lengths(node, steps, rows)
    starts = [_start(state, node, place, is_batch_first) for place in (5, 6)]
    products = _input_products(state, node, layer, x)
    memory = _memory(state, node, layer, steps, rows, is_even=set(lengths) == {steps})
    _prepare(state, node, memory, lengths, starts, layer)
    weights = _packed(state, layer)
    for first, count, length in _runs(lengths):
        _emit(state, node, layer, products, memory, weights, first, count, length)
    _define(state, node, layer, memory, lengths, is_batch_first)
    return [node]


def _layer(node: ir.Node) -> _Layer:
    """Raises Unsupported for everything that the kernel does not compute."""
    w, r = constant(node.inputs[1]), constant(node.inputs[2])
    given = node.inputs[3] if len(node.inputs) > 3 else None
    b = None if given is None else constant(given)
    if w is None or r is None or (given is not None and b is None) or w.dtype != np.float32:
        raise Unsupported("a recurrent layer whose weights are computed, or no float32")
    if any(value is not None for value in node.inputs[7:]):
        raise Unsupported("a recurrent layer with peepholes")
    attributes = node.attributes
    if attributes.get("clip") is not None or attributes.get_int("input_forget", 0) != 0:
        raise Unsupported("a recurrent layer with clip or input_forget")
    direction = attributes.get_string("direction", "forward") or "forward"
    names = tuple(attributes.get_strings("activations") or _DEFAULTS[node.op_type] * len(w))
    own = names[: len(_DEFAULTS[node.op_type])]
    if names != own * len(w) or any(name not in _ACTIVATIONS for name in own):
        raise Unsupported(f"a recurrent layer with {', '.join(names)}")
    kind: Cell = {"LSTM": "lstm", "GRU": "gru", "RNN": "rnn"}[node.op_type]  # type: ignore[assignment]
    if kind == "gru" and not attributes.get_int("linear_before_reset", 0):
        kind = "gru_reset_first"
    biases = np.zeros((len(w), 2 * w.shape[1]), np.float32) if b is None else b
    return _Layer(kind, w, r, biases, tuple(_ACTIVATIONS[name] for name in own), direction == "reverse")


def _lengths(node: ir.Node, steps: int, rows: int) -> list[int]:
    value = node.inputs[4] if len(node.inputs) > 4 else None
    if value is None:
        return [steps] * rows
    known = constant(value)
    if known is None:
        raise Unsupported("a recurrent layer over lengths that are computed")
    lengths = [int(n) for n in known]
    if min(lengths) < 1 or max(lengths) > steps:
        raise Unsupported("a recurrent layer over sequences without elements")
    return lengths


def _start(state: State, node: ir.Node, place: int, is_batch_first: bool) -> Tensor | None:
    """Initial state [directions, rows, hidden]."""
    value = node.inputs[place] if len(node.inputs) > place else None
    if value is None:
        return None
    found = state.tensor(value)
    return transposed(found, (1, 0, 2)) if is_batch_first else found


def _input_products(state: State, node: ir.Node, layer: _Layer, x: Tensor) -> Tensor:
    """W · x + b of both directions and all steps: [steps, rows, directions · gates · hidden]."""
    matrix = layer.w.reshape(-1, layer.w.shape[2])
    width = layer.gates * layer.hidden
    bias = layer.b[:, :width] + layer.b[:, width:]
    if layer.kind == "gru":  # that of the last gate is added before the reset
        bias[:, 2 * layer.hidden :] = layer.b[:, 2 * layer.hidden : width]
    y = state.plain((*x.shape[:2], len(matrix)), "float32")
    lead = x.view((1, *x.shape), (0, *x.strides))
    result = y.view((1, *y.shape), (0, *y.strides))
    read = Access(x.buffer.elements, x.offset, lead.strides[:3])
    offsets = np.arange(matrix.shape[1]) * x.strides[2]
    window = Window((1, 1), (1, 1), (1, 1), matrix.shape[1], (0, 0, x.strides[2]))
    reads = Reads(window, offsets, read, lead)
    product(state, [node], matrix, bias.reshape(-1), reads, result, [], operand(0))
    return y


def _memory(state: State, node: ir.Node, layer: _Layer, steps: int, rows: int, *, is_even: bool) -> _Memory:
    line = layer.directions * layer.hidden
    slots, extra = (steps + 2) * rows * line, rows * line
    cells = {"lstm": 1, "gru_reset_first": 2}.get(layer.kind, 0)
    buffer = Buffer("arena", "float32", slots + cells * extra)
    shape = (steps + 2, rows, layer.directions, layer.hidden)
    whole = Tensor(shape, "float32", buffer, 0, plain_strides(shape))
    if not is_even:
        state.emit(Fill(), [buffer], [node])
    at = slots if cells else 0
    cell = Tensor(shape[1:], "float32", buffer, at, plain_strides(shape[1:]))
    double = (rows, layer.directions, 2 * layer.hidden)
    return _Memory(whole, cell, Tensor(double, "float32", buffer, at, plain_strides(double)))


def _runs(lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    """(first row, rows, length) of neighbours with the same length."""
    found: list[tuple[int, int, int]] = []
    for row, length in enumerate(lengths):
        if found and found[-1][2] == length:
            found[-1] = (found[-1][0], found[-1][1] + 1, length)
        else:
            found.append((row, 1, length))
    return found


def _is_backward(layer: _Layer, direction: int) -> bool:
    return layer.reverse or direction == 1


def _prepare(
    state: State, node: ir.Node, memory: _Memory, lengths: Sequence[int], starts: Sequence[Tensor | None],
    layer: _Layer,
) -> None:  # fmt: skip
    """Write what the directions start from."""
    for direction in range(layer.directions):
        for first, count, length in _runs(lengths):
            slot = length + 1 if _is_backward(layer, direction) else 0
            target = _rows(memory.slots, slot, first, count, direction)
            _write(state, node, target, starts[0], direction, first)
    if layer.kind == "lstm":
        for direction in range(layer.directions):
            target = sliced(memory.cell, 1, direction, 1)
            rows, hidden = target.shape[0], target.shape[2]
            view = target.view((rows, hidden), (target.strides[0], target.strides[2]))
            _write(state, node, view, starts[1], direction, 0)


def _write(state: State, node: ir.Node, target: Tensor, start: Tensor | None, direction: int, first: int) -> None:
    if start is None:
        state.pointwise(const(0.0), [], target, [node])
        return
    rows, hidden = target.shape
    source = sliced(sliced(start, 0, direction, 1), 1, first, rows)
    state.copy(source.view((rows, hidden), source.strides[1:]), target, [node])


def _rows(slots: Tensor, slot: int, first: int, count: int, direction: int) -> Tensor:
    """[rows, hidden] of one slot."""
    part = sliced(sliced(sliced(slots, 0, slot, 1), 1, first, count), 2, direction, 1)
    return part.view((count, slots.shape[3]), (slots.strides[1], slots.strides[3]))


def _packed(state: State, layer: _Layer) -> list[Buffer]:
    """Blocks of R gate by gate within a vector of hidden numbers, and the last gate's bias where it is needed."""
    lanes, hidden = state.isa.lanes("float32"), layer.hidden
    units = -(-hidden // lanes)
    r = np.zeros((layer.directions, layer.gates, units * lanes, hidden), np.float32)
    r[:, :, :hidden] = layer.r.reshape(layer.directions, layer.gates, hidden, hidden)
    ordered = r.reshape(layer.directions, layer.gates, units, lanes, hidden).transpose(0, 2, 1, 3, 4)
    packed = pack_blocks(ordered.reshape(-1, hidden), np.arange(hidden), lanes)
    bias = np.zeros((layer.directions, units * lanes), np.float32)
    if layer.kind == "gru":
        bias[:, :hidden] = layer.b[:, 5 * hidden :]
    return [state.weights(a).buffer for a in (packed.values, packed.index, packed.pointer, bias)]


def _emit(
    state: State, node: ir.Node, layer: _Layer, products: Tensor, memory: _Memory, weights: Sequence[Buffer],
    first: int, count: int, length: int,
) -> None:  # fmt: skip
    size = memory.slots.buffer.elements

    def access(t: Tensor, axes: tuple[int, ...], rows_axis: int, last: int) -> Access:
        return Access(size, t.offset + first * t.strides[rows_axis], (*(t.strides[a] for a in axes), last))

    x = Access(
        products.buffer.elements, products.offset + first * products.strides[1],
        (*products.strides[:2], layer.gates * layer.hidden),
    )  # fmt: skip
    kernel = Recurrent(
        kind=layer.kind, steps=length, batch=count, directions=layer.directions, hidden=layer.hidden,
        rows=state.isa.lanes("float32"), x=x, state=access(memory.slots, (0, 1), 1, memory.slots.strides[2]),
        cell=access(memory.cell, (0,), 0, memory.cell.strides[1]),
        spare=access(memory.spare, (0,), 0, memory.spare.strides[1]), reverse=layer.reverse,
        activations=layer.activations,
    )  # fmt: skip
    state.emit(kernel, [products.buffer, *weights, memory.slots.buffer], [node])
    if length < memory.slots.shape[0] - 2:  # what the backward direction started from lies among the results
        for direction in range(layer.directions):
            if _is_backward(layer, direction):
                state.pointwise(const(0.0), [], _rows(memory.slots, length + 1, first, count, direction), [node])


def _define(
    state: State, node: ir.Node, layer: _Layer, memory: _Memory, lengths: Sequence[int], is_batch_first: bool
) -> None:
    """Y [steps, directions, rows, hidden], Y_h and Y_c [directions, rows, hidden]; rows first in the other layout."""
    steps = memory.slots.shape[0] - 2
    y = transposed(sliced(memory.slots, 0, 1, steps), (1, 0, 2, 3) if is_batch_first else (0, 2, 1, 3))
    last = state.plain((layer.directions, len(lengths), layer.hidden), "float32")
    has_last = len(node.outputs) > 1 and bool(node.outputs[1].name)
    for direction in range(layer.directions if has_last else 0):
        for first, count, length in _runs(lengths):
            slot = 1 if _is_backward(layer, direction) else length
            target = sliced(sliced(last, 0, direction, 1), 1, first, count)
            source = _rows(memory.slots, slot, first, count, direction)
            state.copy(source.view((1, *source.shape), (0, *source.strides)), target, [node])
    found = [y, last, transposed(memory.cell, (1, 0, 2))]
    if is_batch_first:
        found[1:] = [transposed(t, (1, 0, 2)) for t in found[1:]]
    for value, tensor in zip(node.outputs, found, strict=False):
        if value.name:
            assert shape_of(value) == tensor.shape
            state.define(value, tensor)
