"""One linear map from the kept channels to all channels, shared by all positions of a kernel.

    x_d ≈ A x_p + c,  A = Cov(x_d, x_p)(Cov(x_p) + λD)⁻¹ [C, K]
    W'[:, k, :] = W_d[:, k, :]·A,  b' = b + Σ_k W_d[:, k, :]·c

the exact reconstruction of dropped channels from kept ones (OBSPA's step) on drifted inputs. It has C·K numbers to
estimate instead of M·kh·kw·K, so it is what little data can support, and what the full fit is drawn towards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from prunec.passes.compensate.judge import Candidate
from prunec.passes.compensate.layers import ConvLayer, Double, Layer, Matrix
from prunec.passes.compensate.options import Options
from prunec.passes.compensate.pairs import Pairs
from prunec.passes.compensate.rows import position_count, rows_at, sample
from prunec.passes.compensate.solve import solve
from prunec.statistics.moments import Moments

MAX_CHANNELS = 4096


def has_channel_map(layer: Layer) -> bool:
    """Kernels of one position gain nothing over the full fit; depthwise ones have no other channel to draw on."""
    _, _, kernel, channels = layer.matrix().shape
    return isinstance(layer, ConvLayer) and kernel > 1 and 1 < channels <= MAX_CHANNELS


def channel_maps(pairs: Pairs, options: Options, seed: list[int]) -> Iterator[Candidate]:
    """One candidate per damping, made when it is asked for; none where the kept channels of the input are unknown."""
    layer = pairs.layer
    assert isinstance(layer, ConvLayer)
    groups, _, _, channels = layer.matrix().shape
    dense = _dense_matrix(pairs, layer)
    start = _selection(pairs, layer, dense.shape[-1], channels)
    if start is None or dense.shape[0] != groups:
        return
    moments = _moments(pairs, options, [*seed, 1])
    covariance, cross = moments.covariance(), moments.cross_covariance()
    residual = cross - start @ covariance
    for damping in options.dampings:
        change, used = solve(covariance, residual, damping)
        mapped = start + change
        offset = moments.target_mean - np.einsum("gck,gk->gc", mapped, moments.mean)
        bias = layer.bias() + np.einsum("gmkc,gc->gm", dense, offset).ravel()
        yield Candidate("channel", dense @ mapped[:, None].astype(dense.dtype, copy=False), bias, used)


def _dense_matrix(pairs: Pairs, layer: ConvLayer) -> Matrix:
    """W_d [g, M/g, k, C/g] with the kept outputs and all input channels."""
    matrix = replace(layer, node=pairs.dense_node).matrix()
    groups, outputs = matrix.shape[:2]
    mask = pairs.kept.masks(pairs.output, layer.out_axis + 1)[layer.out_axis]
    if mask is None:
        return matrix
    flat = matrix.reshape(groups * outputs, *matrix.shape[2:])[mask]
    kept: Matrix = flat.reshape(groups, -1, *matrix.shape[2:])
    return kept


def _selection(pairs: Pairs, layer: ConvLayer, dense_channels: int, channels: int) -> Double | None:
    """[g, C/g, K/g]: ones where a kept channel is itself."""
    groups = layer.groups
    mask = pairs.kept.masks(pairs.dense_input, layer.data_axis + 1)[layer.data_axis]
    mask = np.ones(groups * dense_channels, bool) if mask is None else mask
    by_group = mask.reshape(groups, -1)
    if by_group.shape[1] != dense_channels or (by_group.sum(axis=1) != channels).any():
        return None
    start = np.zeros((groups, dense_channels, channels))
    for group, own in enumerate(by_group):
        start[group, np.flatnonzero(own), np.arange(channels)] = 1
    return start


def _moments(pairs: Pairs, options: Options, seed: list[int]) -> Moments:
    layer, runner = pairs.layer, pairs.runner
    assert isinstance(layer, ConvLayer)
    name, axis, groups = layer.data.name or "", layer.data_axis, layer.groups
    shapes = [runner.shape("pruned", name, batch) for batch in runner.fit]
    sizes = [position_count(shape, axis) for shape in shapes]
    channels = shapes[0][axis]
    wanted = int(np.clip(options.rows_per_unknown * channels, options.min_rows, options.max_rows))
    share = wanted / max(sum(sizes), 1)
    moments: Moments | None = None
    for batch in runner.fit:
        both = runner.value("pruned", name, batch), pairs.dense_data(batch)
        random = np.random.default_rng([*seed, batch])
        there = position_count(both[0].shape, axis)
        positions = sample(random, there, int(np.ceil(there * share)))
        rows = (rows_at(array, axis, positions) for array in both)
        z, t = (own.reshape(len(positions), groups, -1).transpose(1, 0, 2) for own in rows)
        moments = moments or Moments(groups, z.shape[2], t.shape[2])
        moments.add(z, t)
    assert moments is not None
    return moments
