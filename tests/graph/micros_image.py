"""Micro graphs on images: convolutions and everything that moves, gates or resizes channels."""

from __future__ import annotations

import numpy as np

from tests.graph.builder import Builder
from tests.graph.micros import C, Micro

IMAGE = [1, 3, 8, 8]


def conv_relu_conv(b: Builder) -> None:
    b.output(b.conv(b.relu(b.conv(b.input("x", IMAGE), C)), 8))


def conv_bn_relu_conv(b: Builder) -> None:
    b.output(b.conv(b.relu(b.batch_norm(b.conv(b.input("x", IMAGE), C))), 8))


def bn_relu_conv(b: Builder) -> None:
    """Pre-activation: the norm cannot be folded and has to be cut along."""
    stem = b.conv(b.input("x", IMAGE), C)
    b.output(b.conv(b.relu(b.batch_norm(b.relu(stem))), 8))


def residual(b: Builder) -> None:
    x = b.conv(b.input("x", IMAGE), C)
    y = b.conv(b.relu(b.conv(b.relu(x), C)), C)
    b.output(b.conv(b.op("Add", [x, y]), 8))


def concat(b: Builder) -> None:
    x = b.input("x", IMAGE)
    b.output(b.conv(b.op("Concat", [b.relu(b.conv(x, C)), b.conv(x, 8)], axis=1), 8))


def squeeze_excite(b: Builder) -> None:
    x = b.relu(b.conv(b.input("x", IMAGE), C))
    gate = b.conv(b.relu(b.conv(b.op("GlobalAveragePool", [x]), 4, 1)), C, 1)
    b.output(b.conv(b.op("Mul", [x, b.op("Sigmoid", [gate])]), 8))


def conv_transpose(b: Builder) -> None:
    b.output(b.conv(b.relu(b.conv_transpose(b.conv(b.input("x", IMAGE), C), 12)), 8))


def conv_transpose_grouped(b: Builder) -> None:
    b.output(b.conv(b.relu(b.conv_transpose(b.conv(b.input("x", IMAGE), C), 12, group=2)), 8))


def grouped(b: Builder) -> None:
    b.output(b.conv(b.relu(b.conv(b.relu(b.conv(b.input("x", IMAGE), C)), 32, group=4)), 8))


def depthwise(b: Builder) -> None:
    b.output(b.conv(b.relu(b.conv(b.relu(b.conv(b.input("x", IMAGE), C)), C, group=C)), 8))


def depthwise_multiplier(b: Builder) -> None:
    b.output(b.conv(b.relu(b.conv(b.relu(b.conv(b.input("x", IMAGE), C)), 2 * C, group=C)), 8))


def flatten_gemm(b: Builder) -> None:
    x = b.relu(b.conv(b.input("x", [2, 3, 4, 4]), C))
    b.output(b.gemm(b.relu(b.gemm(b.op("Flatten", [x]), 12)), 5, trans_b=False))


def reshape_gemm(b: Builder) -> None:
    x = b.relu(b.conv(b.input("x", [2, 3, 4, 4]), C))
    b.output(b.gemm(b.reshape(x, [2, -1]), 5))


def split_multiply(b: Builder) -> None:
    left, right = b.op("Split", [b.conv(b.input("x", IMAGE), C)], outputs=2, axis=1, num_outputs=2)
    b.output(b.conv(b.op("Mul", [left, b.op("Sigmoid", [right])]), 8))


def channel_shuffle(b: Builder) -> None:
    x = b.reshape(b.relu(b.conv(b.input("x", IMAGE), C)), [1, 2, C // 2, 8, 8])
    x = b.reshape(b.op("Transpose", [x], perm=[0, 2, 1, 3, 4]), [1, C, 8, 8])
    b.output(b.conv(x, 8))


def static_slice(b: Builder) -> None:
    x = b.relu(b.conv(b.input("x", IMAGE), C))
    bounds = [b.const(np.array([v], np.int64)) for v in (0, C // 2, 1)]
    b.output(b.conv(b.op("Slice", [x, *bounds]), 8), b.conv(x, 4))


def strided_slice(b: Builder) -> None:
    x = b.relu(b.conv(b.input("x", IMAGE), C))
    bounds = [b.const(np.array([v], np.int64)) for v in (-1, -100, 1, -3)]
    b.output(b.conv(b.op("Slice", [x, *bounds]), 8), b.conv(x, 4))


def slice_with_int32_bounds(b: Builder) -> None:
    x = b.relu(b.conv(b.input("x", IMAGE), C))
    bounds = [b.const(np.array([v], np.int32)) for v in (-1, -100, 1, -3)]
    b.output(b.conv(b.op("Slice", [x, *bounds]), 8), b.conv(x, 4))


def gather(b: Builder) -> None:
    x = b.relu(b.conv(b.input("x", IMAGE), C))
    index = b.const(np.array([3, 0, -1, 8, 3], np.int64))
    b.output(b.conv(b.op("Gather", [x, index], axis=1), 8), b.conv(x, 4))


def parameter_multiply(b: Builder) -> None:
    x = b.relu(b.conv(b.input("x", IMAGE), C))
    b.output(b.conv(b.op("Mul", [b.op("PRelu", [x, b.weight(C, 1, 1)]), b.weight(1, C, 1, 1)]), 8))


def nhwc_layer_norm(b: Builder) -> None:
    """The norm's statistic runs over the channels: class C, pinned; the hidden layer behind it is free."""
    x = b.op("Transpose", [b.conv(b.input("x", IMAGE), C)], perm=[0, 2, 3, 1])
    x = b.op("LayerNormalization", [x, b.weight(C), b.weight(C)])
    b.output(b.linear(b.op("Sigmoid", [b.linear(x, 24)]), 8))


def pixel_shuffle(b: Builder) -> None:
    x = b.op("DepthToSpace", [b.conv(b.input("x", IMAGE), C)], blocksize=2, mode="CRD")
    b.output(b.conv(b.relu(x), 8))


def depth_to_space_dcr(b: Builder) -> None:
    x = b.op("DepthToSpace", [b.conv(b.input("x", IMAGE), C)], blocksize=2, mode="DCR")
    b.output(b.conv(b.op("SpaceToDepth", [b.relu(x)], blocksize=2), 8))


def swiglu(b: Builder) -> None:
    x = b.input("x", [2, 5, 12])
    gate = b.linear(x, C, bias=False)
    hidden = b.op("Mul", [b.op("Mul", [gate, b.op("Sigmoid", [gate])]), b.linear(x, C, bias=False)])
    b.output(b.linear(hidden, 12))


def tied_embedding(b: Builder) -> None:
    """Table [V, D] looked up and multiplied with its transpose: the tie holds, and the width D may be cut."""
    table = b.weight(100, C, name="table")
    ids = b.input("x", [2, 5], dtype=7)
    hidden = b.op("Gather", [table, ids])
    b.output(b.linear(hidden, 6), b.op("MatMul", [hidden, b.op("Transpose", [table], perm=[1, 0])]))


def tied_linear(b: Builder) -> None:
    """One large weight used by two layers stays one tensor."""
    shared = b.weight(64, 64, name="shared")
    x = b.linear(b.input("x", [2, 5, 12]), 64)
    x = b.op("MatMul", [b.relu(x), shared])
    x = b.op("MatMul", [b.relu(x), shared])
    b.output(b.linear(x, 3))


def equal_constants(b: Builder) -> None:
    """A bias deduplicated by an exporter: the two layers are cut differently, so each needs its own copy."""
    bias = b.weight(C, name="bias")
    x = b.input("x", IMAGE)
    x = b.op("Conv", [x, b.weight(C, 3, 3, 3), bias])
    x = b.op("Conv", [b.relu(x), b.weight(C, C, 3, 3), bias])
    b.output(b.conv(b.relu(x), 8))


def channel_pad(b: Builder) -> None:
    """Zero channels appended to a shortcut cannot be cut; the eight real ones can, with what they are added to."""
    x = b.relu(b.conv(b.input("x", IMAGE), 8))
    padded = b.op("Pad", [x, b.const(np.array([0, 4, 0, 0, 0, 4, 0, 0], np.int64))])
    b.output(b.conv(b.op("Add", [padded, b.conv(x, C)]), 8))


def expand_gate(b: Builder) -> None:
    x = b.relu(b.conv(b.input("x", IMAGE), C))
    gate = b.op("Expand", [b.op("Sigmoid", [b.conv(x, 1, 1)]), b.const(np.array([1, C, 8, 8], np.int64))])
    b.output(b.conv(b.op("Mul", [x, gate]), 8))


def reduce_over_channels(b: Builder) -> None:
    """A sum over channels is exact, a mean is not (class C)."""
    x = b.relu(b.conv(b.input("x", IMAGE), C))
    axes = b.const(np.array([1], np.int64))
    y = b.relu(b.conv(b.input("y", IMAGE), C))
    b.output(b.op("ReduceSum", [x, axes]), b.op("ReduceMean", [y, axes]))


def resize(b: Builder) -> None:
    x = b.relu(b.conv(b.input("x", IMAGE), C))
    sizes = b.const(np.array([1, C, 16, 16], np.int64))
    b.output(b.conv(b.op("Resize", [x, "", "", sizes], mode="nearest"), 8))


def tile(b: Builder) -> None:
    x = b.relu(b.conv(b.input("x", IMAGE), C))
    b.output(b.conv(b.op("Tile", [x, b.const(np.array([1, 2, 1, 1], np.int64))]), 8))


def unknown_operator(b: Builder) -> None:
    """No rule: pinned, never guessed."""
    x = b.relu(b.conv(b.input("x", IMAGE), C))
    b.output(b.conv(b.op("ReverseSequence", [x, b.input("lengths", [8], dtype=7)], batch_axis=3, time_axis=2), 8))


def grid_sample(b: Builder) -> None:
    """Sampled at places that a layer of its own finds: those two channels stay."""
    x = b.relu(b.conv(b.input("x", IMAGE), C))
    grid = b.op("Transpose", [b.op("Tanh", [b.conv(x, 2, 1)])], perm=[0, 2, 3, 1])
    b.output(b.conv(b.op("GridSample", [x, grid], mode="linear", padding_mode="reflection"), 8))


def roi_align(b: Builder) -> None:
    x = b.relu(b.conv(b.input("x", IMAGE), C))
    rois = b.const(np.array([[0, 0, 4, 4], [1, 1, 7, 6]], np.float32))
    y = b.op("RoiAlign", [x, rois, b.const(np.zeros(2, np.int64))], output_height=3, output_width=3)
    b.output(b.gemm(b.op("Flatten", [y]), 5))


def roi_pyramid(b: Builder) -> None:
    """As detectors pool: what is aligned on each level is scattered into a canvas, and that is flattened."""
    x = b.relu(b.conv(b.input("x", IMAGE), C))
    rois = b.const(np.array([[0, 0, 4, 4], [1, 1, 7, 6]], np.float32))
    canvas = b.op(
        "ConstantOfShape",
        [
            b.op(
                "Concat",
                [b.op("Shape", [b.input("rois", [2, 1])], start=0, end=1), b.const(np.array([C, 3, 3]))],
                axis=0,
            )
        ],
    )
    y = b.op("RoiAlign", [x, rois, b.const(np.zeros(2, np.int64))], output_height=3, output_width=3)
    order = b.op(
        "TopK", [b.op("ReduceSum", [y, b.const(np.array([1, 2, 3]))], keepdims=0), b.const(np.array([2]))], outputs=2
    )[1]
    index = b.op("Expand", [b.reshape(order, [2, 1, 1, 1]), b.const(np.array([2, C, 3, 3]))])
    b.output(b.gemm(b.op("Flatten", [b.op("ScatterElements", [canvas, index, y])]), 5))


IMAGES: dict[str, Micro] = {
    "conv_relu_conv": Micro(conv_relu_conv, [16]),
    "conv_bn_relu_conv": Micro(conv_bn_relu_conv, [16]),
    "bn_relu_conv": Micro(bn_relu_conv, [16]),
    "residual": Micro(residual, [16, 16]),
    "concat": Micro(concat, [16, 8]),
    "squeeze_excite": Micro(squeeze_excite, [16, 4]),
    "conv_transpose": Micro(conv_transpose, [16, 12]),
    "conv_transpose_grouped": Micro(conv_transpose_grouped, [8, 6]),
    "grouped": Micro(grouped, [4, 8]),
    "depthwise": Micro(depthwise, [16]),
    "depthwise_multiplier": Micro(depthwise_multiplier, [16]),
    "flatten_gemm": Micro(flatten_gemm, [16, 12]),
    "reshape_gemm": Micro(reshape_gemm, [16]),
    "split_multiply": Micro(split_multiply, [8]),
    "channel_shuffle": Micro(channel_shuffle, [16]),
    "static_slice": Micro(static_slice, [16]),
    "strided_slice": Micro(strided_slice, [16]),
    "slice_with_int32_bounds": Micro(slice_with_int32_bounds, [16]),
    "gather": Micro(gather, [16]),
    "parameter_multiply": Micro(parameter_multiply, [16]),
    "nhwc_layer_norm": Micro(nhwc_layer_norm, [24], frozenset({"PC102", "PC105"})),
    "pixel_shuffle": Micro(pixel_shuffle, [4]),
    "depth_to_space_dcr": Micro(depth_to_space_dcr, [4]),
    "swiglu": Micro(swiglu, [16]),
    "tied_embedding": Micro(tied_embedding, [16]),
    "tied_linear": Micro(tied_linear, [64]),
    "equal_constants": Micro(equal_constants, [16, 16]),
    "channel_pad": Micro(channel_pad, [8], frozenset({"PC102", "PC103"})),
    "expand_gate": Micro(expand_gate, [16]),
    "reduce_over_channels": Micro(reduce_over_channels, [16], frozenset({"PC105"})),
    "resize": Micro(resize, [16]),
    "tile": Micro(tile, [16]),
    "grid_sample": Micro(grid_sample, [16], frozenset({"PC102", "PC109"}), opset=20),
    "roi_align": Micro(roi_align, [16]),
    "roi_pyramid": Micro(roi_pyramid, [16]),
    "unknown_operator": Micro(unknown_operator, [], frozenset({"PC101", "PC102"})),
}
