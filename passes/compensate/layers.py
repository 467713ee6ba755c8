"""What can be refitted: every layer as y = W z + b over patches z of its input.

A layer has g independent groups; its matrix is [g, M/g, K, C/g] (output channels, kernel positions, input
channels) and its bias [M]. Layouts, Gemm's alpha and beta, and where a bias lives are known here only.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from prunec.backends.onnx.segment import proto_of
from prunec.graph.rules.base import attribute, given
from prunec.graph.shapes import constant, dims, is_constant
from prunec.passes.compensate.constants import set_constant

Double = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.floating]
LARGE = 1 << 20
Patch = dict[int, np.ndarray]
"""New constants of a node by input index."""


@dataclass(frozen=True)
class Layer(ABC):
    """Base of all layers. `data_axis` and `out_axis` hold the channels of the input and the output."""

    node: ir.Node
    data_index: int
    weight_index: int
    data_axis: int
    out_axis: int
    can_shift: bool
    """Whether a bias can be changed or added."""

    @property
    def name(self) -> str:
        return self.node.name or ""

    @property
    def data(self) -> ir.Value:
        value = self.node.inputs[self.data_index]
        assert value is not None
        return value

    @property
    def weight_type(self) -> np.dtype:
        """What the node itself has."""
        value = self.node.inputs[self.weight_index]
        assert value is not None and value.dtype is not None
        return np.dtype(value.dtype.numpy())

    def weight(self, index: int | None = None) -> Matrix:
        """float64; above `LARGE` elements float32, which is what the layer itself computes in."""
        value = constant(self.node.inputs[self.weight_index if index is None else index])
        assert value is not None
        return value.astype(np.float64 if value.size <= LARGE else np.float32, copy=False)

    @abstractmethod
    def matrix(self) -> Matrix: ...

    @abstractmethod
    def bias(self) -> Double: ...

    @abstractmethod
    def arrays(self, matrix: Matrix, bias: Double) -> Patch:
        """The node's constants that realise a matrix and a bias."""

    def target_rows(self, array: np.ndarray) -> np.ndarray:
        """[positions, M] of an output, positions in row-major order of the axes that are not channels or groups."""
        moved: np.ndarray = np.moveaxis(array, self.out_axis, -1)
        return moved.reshape(-1, moved.shape[-1])

    def target_rows_at(self, array: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """`target_rows(array)[positions]` without a copy of the others."""
        moved = np.moveaxis(array, self.out_axis, -1)
        found: np.ndarray = moved[np.unravel_index(positions, moved.shape[:-1])]
        return found

    def position_count(self, shape: Sequence[int]) -> int:
        """How many rows those are of an output of that shape."""
        return math.prod(shape) // shape[self.out_axis] if shape[self.out_axis] else 0

    def constant_between(self) -> np.ndarray | None:
        """What another node adds to the output before a residual addition."""
        return None

    @property
    def adds_bias_outside(self) -> bool:
        """Whether the bias is not one of the node's own constants."""
        return False

    def judged_arrays(self, matrix: Matrix, bias: Double) -> dict[str, np.ndarray]:
        """`arrays` under the names that `judged` reads, always with a bias where the node can have one."""
        arrays = self.arrays(matrix, bias)
        if self.can_shift and not self.adds_bias_outside:
            arrays.setdefault(2, bias)
        return {f"{self.name}.{index}": array for index, array in arrays.items()}

    def judged(self) -> list[onnx.NodeProto]:
        """The nodes to run for one candidate, with the constants of `judged_arrays` as inputs."""
        node = proto_of(self.node)
        for name in self.judged_arrays(self.matrix(), self.bias()):
            index = int(name.rpartition(".")[2])
            while len(node.input) <= index:
                node.input.append("")
            node.input[index] = name
        return [node]

    def write(self, graph: ir.Graph, matrix: Matrix, bias: Double) -> None:
        for index, array in self.arrays(matrix, bias).items():
            set_constant(graph, self.node, index, array)

    def bias_of(self, index: int, length: int) -> Double:
        value = constant(self.node.inputs[index]) if given(self.node, index) else None
        return np.zeros(length) if value is None else np.broadcast_to(value.reshape(-1), length).astype(np.float64)


@dataclass(frozen=True)
class ConvLayer(Layer):
    """Conv [M, C/g, k…] and ConvTranspose [C, M/g, k…]."""

    @property
    def groups(self) -> int:
        return int(attribute(self.node, "group", 1))

    @property
    def is_transposed(self) -> bool:
        return self.node.op_type == "ConvTranspose"

    def matrix(self) -> Matrix:
        weight = self.weight()
        groups, (first, second) = self.groups, weight.shape[:2]
        split: Matrix = weight.reshape(groups, first // groups, second, -1)
        order = (0, 2, 3, 1) if self.is_transposed else (0, 1, 3, 2)
        turned: Matrix = split.transpose(order)
        return turned

    def bias(self) -> Double:
        shape = dims(self.node.inputs[1])
        assert shape is not None
        return self.bias_of(2, int(shape[1] or 0) * self.groups if self.is_transposed else int(shape[0] or 0))

    def arrays(self, matrix: Matrix, bias: Double) -> Patch:
        shape = [int(d or 0) for d in dims(self.node.inputs[1]) or ()]
        order = (0, 3, 1, 2) if self.is_transposed else (0, 1, 3, 2)
        found = {1: matrix.transpose(order).reshape(shape)}
        if given(self.node, 2) or bias.any():
            found[2] = bias
        return found


@dataclass(frozen=True)
class GemmLayer(Layer):
    """Y = α A' B' + β C."""

    def _scales(self) -> tuple[float, float]:
        return float(attribute(self.node, "alpha", 1.0)), float(attribute(self.node, "beta", 1.0))

    def matrix(self) -> Matrix:
        alpha, weight = self._scales()[0], self.weight()
        weight = weight if alpha == 1 else weight * alpha
        return (weight if attribute(self.node, "transB", 0) else weight.T)[None, :, None, :]

    def bias(self) -> Double:
        length = self.matrix().shape[1]
        return self.bias_of(2, length) * self._scales()[1] if self.can_shift else np.zeros(length)

    def arrays(self, matrix: Matrix, bias: Double) -> Patch:
        alpha, beta = self._scales()
        weight = matrix[0, :, 0, :]
        weight = weight if alpha == 1 else weight / alpha + 0.0  # a zero divided by a negative number would be −0.0
        found = {1: weight if attribute(self.node, "transB", 0) else weight.T}
        if self.can_shift and (given(self.node, 2) or bias.any()):
            found[2] = bias / beta
        return found


@dataclass(frozen=True)
class MatMulLayer(Layer):
    """x W (weight_index 1) or W x (0). The bias is the constant of a following Add, relative to what is there."""

    shift: ir.Node | None = None
    """The Add that holds the bias."""

    def constant_between(self) -> np.ndarray | None:
        return None if self.shift is None else constant(self.shift.inputs[self._shift_index()])

    def _shift_index(self) -> int:
        assert self.shift is not None
        return 0 if is_constant(self.shift.inputs[0]) else 1

    @property
    def adds_bias_outside(self) -> bool:
        return True

    def matrix(self) -> Matrix:
        weight = self.weight()
        return (weight.T if self.weight_index == 1 else weight)[None, :, None, :]

    def bias(self) -> Double:
        return np.zeros(self.matrix().shape[1])

    def arrays(self, matrix: Matrix, bias: Double) -> Patch:
        weight = matrix[0, :, 0, :]
        return {self.weight_index: weight.T if self.weight_index == 1 else weight}

    def write(self, graph: ir.Graph, matrix: Matrix, bias: Double) -> None:
        super().write(graph, matrix, bias)
        if self.shift is not None and bias.any():
            index = self._shift_index()
            old = constant(self.shift.inputs[index])
            assert old is not None
            column = bias if self.weight_index == 1 else bias[:, None]
            set_constant(graph, self.shift, index, old.astype(np.float64) + column)


@dataclass(frozen=True)
class StackLayer(Layer):
    """x [.., E, T, C] (or one x [.., T, C] for all) times a stack of matrices [E, C, M/E]: E groups without a bias."""

    def matrix(self) -> Matrix:
        weight = self.weight()
        found: Matrix = weight.reshape(weight.shape[-3:]).transpose(0, 2, 1)[:, :, None, :]
        return found

    def bias(self) -> Double:
        groups, outputs, _, _ = self.matrix().shape
        return np.zeros(groups * outputs)

    def arrays(self, matrix: Matrix, bias: Double) -> Patch:
        shape = [int(d or 0) for d in dims(self.node.inputs[1]) or ()]
        return {1: matrix[:, :, 0, :].transpose(0, 2, 1).reshape(shape)}

    @property
    def groups(self) -> int:
        return int((dims(self.node.inputs[1]) or ())[-3] or 0)

    def target_rows(self, array: np.ndarray) -> np.ndarray:
        """Rows hold the outputs of all matrices of the stack, one after the other."""
        turned: np.ndarray = np.moveaxis(array, -3, -2)
        return turned.reshape(-1, turned.shape[-2] * turned.shape[-1])

    def target_rows_at(self, array: np.ndarray, positions: np.ndarray) -> np.ndarray:
        found: np.ndarray = self.target_rows(array)[positions]
        return found

    def position_count(self, shape: Sequence[int]) -> int:
        return super().position_count(shape) // self.groups

    def input_rows(self, array: np.ndarray) -> np.ndarray:
        """[E, positions, C]; a view where all matrices read the same."""
        if array.ndim < 3 or array.shape[-3] != self.groups:
            rows = array.reshape(-1, array.shape[-1])
            return np.broadcast_to(rows, (self.groups, *rows.shape))
        return np.moveaxis(array, -3, 0).reshape(self.groups, -1, array.shape[-1])


@dataclass(frozen=True)
class NormLayer(Layer):
    """BatchNormalization as C layers of one weight: y = s·x + o, s = γ/√(σ²+ε), o = β − s·μ."""

    def _deviation(self) -> Double:
        variance = self.weight(4).astype(np.float64)
        found: Double = np.sqrt(variance + float(attribute(self.node, "epsilon", 1e-5)))
        return found

    def matrix(self) -> Matrix:
        return (self.weight(1) / self._deviation())[:, None, None, None]

    def bias(self) -> Double:
        return self.weight(2) - self.matrix().ravel() * self.weight(3)

    def arrays(self, matrix: Matrix, bias: Double) -> Patch:
        scale = matrix.ravel()
        return {1: scale * self._deviation(), 2: bias + scale * self.weight(3)}

    def reestimated(self, mean: Double, variance: Double) -> tuple[Matrix, Double]:
        """The same γ and β with the statistics of another input: what re-estimation in training mode would give."""
        deviation = np.sqrt(variance + float(attribute(self.node, "epsilon", 1e-5)))
        scale = self.weight(1) / deviation
        return scale[:, None, None, None], self.weight(2) - scale * mean
