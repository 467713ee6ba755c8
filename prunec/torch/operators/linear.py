"""Products: matrices, stacks of matrices, and whatever einsum writes."""

from __future__ import annotations

from typing import Any

import torch


def gemm(
    a: Any,
    b: Any,
    c: Any = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Any:
    """y = α A' B' + β C."""
    y = torch.matmul(a.t() if transA else a, b.t() if transB else b)
    y = y if alpha == 1 else alpha * y
    if c is None or beta == 0:
        return y
    return y + (c if beta == 1 else beta * c)


def einsum(*tensors: Any, equation: str) -> Any:
    return torch.einsum(equation.replace(" ", ""), *tensors)


OPERATORS = {"Einsum": einsum, "Gemm": gemm, "MatMul": torch.matmul}
