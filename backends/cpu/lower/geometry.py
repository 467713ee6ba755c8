"""Kernels, strides, dilations and pads of convolutions and pools, with auto_pad worked out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from prunec.backends.cpu.lower.state import Border, Unsupported, shape_of


@dataclass(frozen=True)
class Window:
    """Over two axes; `pads` as in Tensor: top, left, bottom, right."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: Border


def window_of(node: ir.Node, kernel: Sequence[int] | None = None) -> Window:
    """The window of a Conv, MaxPool or AveragePool; one axis counts as the second of two."""
    size = list(shape_of(node.inputs[0]))[2:]
    axes = len(size)
    if axes not in (1, 2):
        raise Unsupported(f"{node.op_type} over {axes} axes")
    own = list(kernel) if kernel is not None else list(node.attributes.get_ints("kernel_shape") or ())
    own = own[-axes:]
    strides = list(node.attributes.get_ints("strides") or [1] * axes)
    dilations = list(node.attributes.get_ints("dilations") or [1] * axes)
    pads = list(node.attributes.get_ints("pads") or [0] * 2 * axes)
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        total = [
            max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
            for n, s, d, k in zip(size, strides, dilations, own, strict=True)
        ]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = [*small, *large] if auto == "SAME_UPPER" else [*large, *small]
    if axes == 1:
        own, strides, dilations, pads = [1, *own], [1, *strides], [1, *dilations], [0, pads[0], 0, pads[1]]
    if min(pads) < 0:
        raise Unsupported("negative pads")
    return Window(
        (own[0], own[1]), (strides[0], strides[1]), (dilations[0], dilations[1]), (pads[0], pads[1], pads[2], pads[3])
    )


def wanted_borders(nodes: Sequence[ir.Node]) -> dict[str, Border]:
    """For every rank 4 value that convolutions read: the zeros that all of them together want around it."""
    found: dict[str, Border] = {}
    for node in nodes:
        value = node.inputs[0] if node.inputs else None
        if node.op_type != "Conv" or value is None or value.name is None or value.shape is None:
            continue
        if len(value.shape) != 4 or node.inputs[1] is None or node.inputs[1].shape is None:
            continue
        try:
            pads = window_of(node, shape_of(node.inputs[1])[2:]).pads
        except Unsupported:
            continue
        have = found.get(value.name, (0, 0, 0, 0))
        found[value.name] = (max(have[0], pads[0]), max(have[1], pads[1]), max(have[2], pads[2]), max(have[3], pads[3]))
    return found
